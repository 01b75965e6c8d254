//! The sandbox state machine: VM, disks, network, agent connection, containers, endings.
//!
//! One struct a state, moved forward:
//!
//! ```text
//! Configured ─boot→ Booted ─set_network→ Networked ─create→ Created ─run_to_end→ Outcome
//! ```
//!
//! Every step ends in the next state or in a [`SandboxError`] that says whose refusal or fault it is; either
//! way nothing of the VM stays. All of this is the host's side: it decides nothing about what may run, and
//! what it hands over (policy, layers, command line) it treats as opaque.
#![forbid(unsafe_code)]

mod config;
mod console;
mod containers;
mod error;
mod events;
mod guest;
mod ids;
mod link;
mod machine;
mod memory;
mod scratch;
mod services;
mod states;
mod stop;

pub use ah_agent_client::{AgentClient, CallError, Limit, RawCall, Stream, Tamper};
pub use config::{GuestFiles, LayerImage, NetworkMode, SandboxConfig, VsockService};
pub use containers::{ContainerEnd, Outcome};
pub use error::{Blame, SandboxError};
pub use events::{Events, Stage, StageName};
pub use guest::{Guest, GuestConfig};
pub use ids::host_values;
pub use memory::vm_memory_mib;
pub use scratch::ScratchConfig;
pub use states::{Booted, Configured, Created, Networked};
pub use stop::{Stop, StopHandle};

use std::sync::Arc;

/// Starts a sandbox: boots the VM, waits for the agent, sets the network up, makes the sandbox.
///
/// # Errors
/// [`SandboxError`], split by blame; nothing is left behind.
pub async fn start(
    config: SandboxConfig,
    events: Arc<dyn Events>,
    stop: &mut Stop,
) -> Result<Created, SandboxError> {
    let starting = async {
        Configured::new(config, events)?.boot().await?.set_network().await?.create().await
    };
    tokio::select! {
        started = starting => started,
        () = stop.requested() => Err(SandboxError::Stopped),
    }
}

/// Runs the pod once, from the start of its VM to its end: init containers one by one, then the others side
/// by side. Whatever the pod's restart policy says, nothing is started again.
///
/// # Errors
/// As [`start`], and when a container could not be created or started.
pub async fn run(
    config: SandboxConfig,
    events: Arc<dyn Events>,
    mut stop: Stop,
) -> Result<Outcome, SandboxError> {
    start(config, events, &mut stop).await?.run_to_end(stop).await
}
