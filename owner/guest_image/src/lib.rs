//! Builds the guest image reproducibly from a Debian kernel and the guest binaries, and measures it.
//!
//! An image is a folder:
//!
//! | file | content |
//! |---|---|
//! | `vmlinuz` | the kernel, as its package has it |
//! | `initrd` | newc archive, not compressed: init, agent, the modules that a pod needs |
//! | `cmdline.<tee>` | the whole command line for that TEE, without a final newline |
//! | `manifest.json` | where each part came from, its SHA-256 and length |
//!
//! Equal inputs give equal bytes: times are zero, names sorted, owners root. [`guest_build`] says how the binaries are built so
//! that they, too, are equal wherever the checkout is.
#![forbid(unsafe_code)]

mod binaries;
mod cpio;
mod debian;
mod error;
mod image;
mod manifest;
mod measure;
mod modules;

pub use binaries::{GuestBuild, guest_build};
pub use error::ImageError;
pub use image::{BuildOptions, GuestImage, KernelChoice, build, command_line, reference_initrd};
pub use manifest::{KernelOrigin, Manifest, ModulePart, Part};
pub use measure::{Machine, measure};
