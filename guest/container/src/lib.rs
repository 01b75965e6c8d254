//! Containers in the guest: create, start, exec, signal, wait, stats, remove.
#![forbid(unsafe_code)]
