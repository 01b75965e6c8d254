//! End-to-end and attack cases on real VMs, and the hostile host that plays them.
#![forbid(unsafe_code)]

pub mod attack;
pub mod demo;
mod heard;
mod scene;

pub use heard::Heard;
pub use scene::{KEY, Scene, checkout, command, software_root, static_program, target};
