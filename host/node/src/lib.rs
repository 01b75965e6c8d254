//! A Kubernetes node gets Anchorhold's runtime handlers, and says what it can do: containerd's configuration, doctor.
//!
//! [`merge`] and [`unmerge`] are functions from text to text; [`install`], [`uninstall`] and [`OwnFile`] are the only ones that write.
#![forbid(unsafe_code)]

mod doctor;
mod install;
mod merge;
mod own_files;
mod version;

pub use doctor::{Check, DoctorOptions, Finding, doctor};
pub use install::{InstallError, Installed, check, install, installed, uninstall};
pub use merge::{Handler, MergeError, RUNTIME_TYPE, Wanted, merge, unmerge};
pub use own_files::{OwnFile, Removed, ShimConfig, Written, snapshotter_config};
pub use version::{ContainerdVersion, VersionError};
