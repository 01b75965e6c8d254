//! OCI images made on this machine for demo and tests: busybox, static programs, awkward layers.
//!
//! The same inputs give the same bytes. Only the programs' own bytes (busybox of Debian, static binaries of this
//! project) come from outside.
#![forbid(unsafe_code)]

mod archive;
mod awkward;
mod image;
mod layout;
pub mod listing;
mod machine;
mod random;
mod registry;
mod tar_writer;

pub use archive::write_archive;
pub use awkward::{awkward_layer, awkward_upper_layer};
pub use image::{ImageSpec, LayerSpec, Packing, busybox, program, sidecar};
pub use layout::{BuiltImage, BuiltLayer, LayoutBuilder};
pub use machine::{machine_layer, package_files};
pub use random::{random_bytes, random_layer};
pub use registry::{DockerRegistry, store_image};
pub use tar_writer::{Entry, MTIME, TarBuilder};
