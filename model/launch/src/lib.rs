//! The expected launch digest of a guest, from firmware, kernel, initrd, command line and vCPUs.
#![forbid(unsafe_code)]
