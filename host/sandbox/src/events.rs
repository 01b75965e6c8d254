//! What a caller hears while a sandbox lives.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ah_agent_client::Stream;

/// Receives what happens; every method may be left as it is.
pub trait Events: Send + Sync {
    /// One line that a container printed, without its line feed, or the part of a line longer than 16 KiB.
    fn output(&self, _container: &str, _stream: Stream, _line: &[u8]) {}

    /// A stage was reached.
    fn stage(&self, _stage: &Stage) {}

    /// A container ended with this exit code.
    fn ended(&self, _container: &str, _exit_code: i32) {}

    /// A container ran out of memory.
    fn out_of_memory(&self, _container: &str) {}
}

/// Hears nothing.
impl Events for () {}

/// A point in a sandbox's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// The container or service port it is about, if any.
    pub subject: Option<String>,
    /// Time since the VM's start was asked for.
    pub at: Duration,
}

/// Names of the stages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// QEMU runs.
    VmStarted,
    /// First connection from the guest: the kernel is up and init is at work.
    KernelUp,
    /// The agent answers.
    AgentReady,
    /// Network interface and routes are set.
    NetworkSet,
    /// The sandbox is there.
    SandboxCreated,
    /// A container is there.
    ContainerCreated,
    /// A container's process runs.
    ContainerStarted,
    /// A container printed its first line.
    FirstOutput,
    /// A service of the host took a connection of the guest.
    ServiceCalled,
    /// A service of the host has answered.
    ServiceAnswered,
    /// A container's process ended.
    ContainerEnded,
    /// The sandbox is destroyed.
    SandboxDestroyed,
    /// Nothing of the VM is left.
    VmEnded,
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmStarted => "vm started",
            Self::KernelUp => "kernel up",
            Self::AgentReady => "agent ready",
            Self::NetworkSet => "network set",
            Self::SandboxCreated => "sandbox created",
            Self::ContainerCreated => "container created",
            Self::ContainerStarted => "container started",
            Self::FirstOutput => "first output",
            Self::ServiceCalled => "service called",
            Self::ServiceAnswered => "service answered",
            Self::ContainerEnded => "container ended",
            Self::SandboxDestroyed => "sandbox destroyed",
            Self::VmEnded => "vm ended",
        })
    }
}

/// Collects the stages and passes them on.
#[derive(Clone)]
pub(crate) struct Timeline {
    start: Instant,
    stages: Arc<Mutex<Vec<Stage>>>,
    pub(crate) events: Arc<dyn Events>,
}

impl Timeline {
    pub(crate) fn new(events: Arc<dyn Events>) -> Self {
        Self { start: Instant::now(), stages: Arc::default(), events }
    }

    pub(crate) fn reached(&self, name: StageName, subject: Option<&str>) {
        let stage = Stage { name, subject: subject.map(str::to_owned), at: self.start.elapsed() };
        self.events.stage(&stage);
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
    }

    /// Only the first time counts.
    pub(crate) fn reached_first(&self, name: StageName, subject: Option<&str>) {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let known = stages.iter().any(|s| s.name == name && s.subject.as_deref() == subject);
        drop(stages);
        if !known {
            self.reached(name, subject);
        }
    }

    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
