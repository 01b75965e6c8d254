//! containerd-shim-anchorhold-v2: containerd's task API in front of one sandbox VM a pod.
//!
//! containerd calls the program three ways ([`Call`]): `start` in a container's bundle gives the address of the pod's shim
//! and makes one for a sandbox; without a word it is that shim ([`serve`]); `delete` takes away what a shim left behind.
//!
//! ```text
//! wire bytes -> server -> service (the tasks of one pod) -> pod (VM, agent, disks, network)
//!                            |-> events -> containerd
//!                            |-> stdio  -> containerd's fifos
//! ```
#![forbid(unsafe_code)]

mod call;
mod config;
pub mod convert;
mod counting;
mod error;
mod events;
mod forward;
mod host_files;
mod keys;
mod launch;
mod log;
mod machine;
mod network;
mod pod;
mod process;
mod remove;
mod serve;
mod server;
mod service;
mod stats;
mod stdio;
mod termination;
mod trace;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire/mod.rs"));
}

pub use call::{Action, Call, CallError};
pub use config::{Config, ConfigError, KeyAddress, Tee};
pub use error::ShimError;
pub use launch::start;
pub use remove::delete;
pub use serve::serve;
