//! A Kubernetes node gets Anchorhold's runtime handlers, and says what it can do: containerd's configuration, doctor.
//!
//! [`merge`] and [`unmerge`] are functions from text to text; [`install`] and [`uninstall`] are the only ones that write.
#![forbid(unsafe_code)]

mod doctor;
mod install;
mod merge;
mod version;

pub use doctor::{Check, DoctorOptions, Finding, doctor};
pub use install::{InstallError, Installed, install, uninstall};
pub use merge::{MergeError, RUNTIME_TYPE, Wanted, merge, unmerge};
pub use version::{ContainerdVersion, VersionError};
