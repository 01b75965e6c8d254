//! Builds the guest image reproducibly from a Debian kernel and the guest binaries, and measures it.
#![forbid(unsafe_code)]
