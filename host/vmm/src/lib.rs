//! VmSpec, the accelerator choice, the QEMU driver and the vsock bridge; nothing is left behind.
#![forbid(unsafe_code)]
