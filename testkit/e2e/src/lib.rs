//! End-to-end and attack cases on real VMs.
#![forbid(unsafe_code)]
