//! OCI images made on this machine for demo and tests: busybox, static programs, awkward layers.
#![forbid(unsafe_code)]
