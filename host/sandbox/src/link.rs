//! A running VM with its agent: every call ends in an answer or in an error that says whose it is.

use std::{future::Future, time::Duration};

use ah_agent_client::{AgentClient, CallError};
use ah_vmm::{VmError, VmExit};
use tokio::time::timeout;

use crate::{
    SandboxError,
    console::{self, InitWord},
    error,
    events::Timeline,
    machine::Machine,
    services::Services,
};

/// A guest that is about to end needs a moment: its agent's connection closes first.
const END_LIMIT: Duration = Duration::from_secs(3);
/// Text of the agent's error when a layer's bytes do not match their root hash.
const VERITY_MARK: &str = "dm-verity in the guest kernel refused";
/// Console lines that go into an error.
const CONSOLE_LINES: usize = 20;

pub(crate) struct Link {
    pub(crate) vm: Machine,
    pub(crate) agent: AgentClient,
    pub(crate) timeline: Timeline,
    pub(crate) services: Services,
}

impl Link {
    /// Waits for a call's answer; `container` is its name.
    pub(crate) async fn call<T>(
        &self,
        container: Option<&str>,
        answer: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, SandboxError> {
        match answer.await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.explain(container, error).await),
        }
    }

    pub(crate) async fn explain(&self, container: Option<&str>, error: CallError) -> SandboxError {
        let container = container.map(str::to_owned);
        match error {
            CallError::Denied { method, message } => {
                SandboxError::DeniedByPolicy { method, container, reason: message }
            }
            CallError::Refused { message, .. } if message.contains(VERITY_MARK) => {
                SandboxError::LayerRefused { container, reason: message }
            }
            CallError::Refused { method, message, .. } => {
                SandboxError::AgentFailed { method, container, reason: message }
            }
            CallError::Disconnected { .. } | CallError::Timeout { .. } => {
                match timeout(END_LIMIT, self.vm.wait()).await {
                    Ok(exit) => ended(&self.vm, &exit),
                    Err(_) => {
                        SandboxError::NoAnswer { source: error, console: console_tail(&self.vm) }
                    }
                }
            }
            CallError::Request { .. } | CallError::Answer { .. } => {
                SandboxError::NoAnswer { source: error, console: console_tail(&self.vm) }
            }
        }
    }

    /// Layers that dm-verity refused while containers ran, by container id.
    pub(crate) fn corruptions(&self) -> Vec<(String, String)> {
        let lines = self.vm.console();
        console::corruptions(lines.iter().map(|line| line.text.as_str()))
    }
}

/// The error for a guest that ended before it should.
pub(crate) fn ended(vm: &Machine, exit: &VmExit) -> SandboxError {
    let lines = vm.console();
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let word = console::init_word(&texts);
    match (exit, word) {
        (VmExit::PoweredOff, Some(InitWord::Refused(reason))) => {
            SandboxError::RefusedByInit { reason }
        }
        (VmExit::PoweredOff, Some(InitWord::Failed(reason))) => SandboxError::GuestEnded {
            how: format!("{}: {reason}", error::how(exit)),
            console: console_tail(vm),
        },
        _ => SandboxError::GuestEnded { how: error::how(exit), console: console_tail(vm) },
    }
}

/// The error for a VM that never answered.
pub(crate) async fn no_boot(vm: &Machine, error: VmError) -> SandboxError {
    match error {
        VmError::Ended => ended(vm, &vm.wait().await),
        VmError::Timeout { limit, .. } => SandboxError::GuestEnded {
            how: format!("no agent after {limit:?}"),
            console: console_tail(vm),
        },
        other => other.into(),
    }
}

fn console_tail(vm: &Machine) -> String {
    let lines = vm.console();
    let skip = lines.len().saturating_sub(CONSOLE_LINES);
    let texts: Vec<_> = lines.iter().skip(skip).map(|line| line.text.as_str()).collect();
    texts.join("\n")
}
