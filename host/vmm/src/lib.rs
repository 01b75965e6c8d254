//! VmSpec, the accelerator choice, the QEMU driver and the vsock bridge; nothing is left behind.
//!
//! This crate belongs to the untrusted side: whatever it does, a guest that was measured and a policy that
//! was bound to it decide what runs. What it owes its user is order: a VM that starts fast, and no process,
//! socket or file that stays after any ending.
//!
//! Three processes make one VM. The launcher (the caller of [`Vm::start`]) starts a [`supervisor`], and that
//! one starts the vsock bridge and QEMU. The launcher and the supervisor hold the two ends of one socket, so
//! the death of either, by any signal, is an end of file for the other. The program that calls
//! [`Vm::start`] must call [`supervisor::run_if_asked`] first thing in `main`.
//!
//! ```text
//! launcher ──control socket── supervisor ──┬── vhost-device-vsock   (parent-death signal KILL)
//!                                          └── qemu                 (parent-death signal KILL)
//! ```
#![forbid(unsafe_code)]

pub mod accelerator;
pub mod firmware;
pub mod host_tee;
pub mod namespace;
pub mod run_dir;
pub mod supervisor;

mod console;
mod error;
mod pci;
mod qemu;
mod qmp;
mod spec;
mod tee;
mod tools;
mod vm;
mod vsock;

pub use accelerator::Accelerator;
pub use console::{ConsoleLine, ConsoleTail};
pub use error::VmError;
pub use host_tee::HostTee;
pub use pci::PciPath;
pub use qemu::{GUEST_MAC, TCG_CODE_MIB};
pub use run_dir::RunDir;
pub use spec::{Disk, HostForward, Network, Protocol, SERIAL_MAX_BYTES, VmSpec, VsockBackend};
pub use tee::{SnpLaunch, TdxLaunch, TeeLaunch};
pub use tools::Tools;
pub use vm::{Vm, VmExit};
pub use vsock::VsockListener;
