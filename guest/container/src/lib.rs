//! Containers in the guest: created, started, entered, signalled, waited for and removed.
//!
//! libcontainer forks, and a forked child of a multi-threaded process may only call async-signal-safe functions. So everything
//! that forks happens in a second, single-threaded process ([`runtime_process`]) made by re-executing the agent's own binary once
//! at start; the agent sends it orders over a socket ([`Runtime`]). The processes it makes are children of the agent
//! (`CLONE_PARENT`), which alone waits for them ([`ProcessTable`]), so a pid cannot be reused between a look-up and a signal.
#![forbid(unsafe_code)]

mod cgroup;
mod id;
mod layout;
mod message;
mod prepare;
mod process;
mod runtime;
mod runtime_process;
mod settings;
mod spec;
mod spec_parts;
mod stdio;

pub use cgroup::{Cgroup, CgroupError, CgroupUsage, Pressure};
pub use id::{ContainerId, ExecId, IdError};
pub use layout::{Layout, MAX_SPEC_BYTES};
pub use prepare::{PrepareError, home_directory, make_working_directory};
pub use process::{ExitStatus, ProcessTable, Reaped, SignalError};
pub use runtime::{Runtime, RuntimeError};
pub use runtime_process::{RUNTIME_SUBCOMMAND, runtime_process};
pub use settings::{SETTINGS, check_settings};
pub use spec::{ExecContext, SpecContext, SpecError, container_spec, exec_process};
pub use stdio::{ChildStdio, ParentStdio, stdio_pipes};
