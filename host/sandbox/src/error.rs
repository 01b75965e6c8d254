//! Why a sandbox did not run to its end, split by who refused or failed.

use ah_agent_client::CallError;
use ah_pod::RequestError;
use ah_vmm::{VmError, VmExit};

/// Failure of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The configuration cannot be run by anybody.
    #[error("sandbox configuration: {detail}")]
    Config {
        /// What is wrong.
        detail: String,
    },
    /// The pod cannot be turned into requests.
    #[error("the pod cannot be turned into requests")]
    Request(#[from] RequestError),
    /// This machine could not start or keep the VM.
    #[error("the virtual machine")]
    Vm(#[from] VmError),
    /// A file of this machine.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
    /// Init in the guest compared what it was given and powered the machine off.
    #[error("refused by init in the guest: {reason}")]
    RefusedByInit {
        /// Init's words.
        reason: String,
    },
    /// The policy in the guest does not allow a request.
    #[error("refused by the agent's policy in the guest{}: {reason}", about(container))]
    DeniedByPolicy {
        /// Agent method.
        method: &'static str,
        /// Container that the request was about.
        container: Option<String>,
        /// The agent's words.
        reason: String,
    },
    /// A layer's bytes are not those under its root hash.
    #[error("refused by dm-verity in the guest{}: {reason}", about(container))]
    LayerRefused {
        /// Container that needed the layer.
        container: Option<String>,
        /// The agent's words.
        reason: String,
    },
    /// The agent allowed a request and could not carry it out.
    #[error("the agent in the guest could not carry out {method}{}: {reason}", about(container))]
    AgentFailed {
        /// Agent method.
        method: &'static str,
        /// Container that the request was about.
        container: Option<String>,
        /// The agent's words.
        reason: String,
    },
    /// The guest ended before the pod did.
    #[error("the guest ended unexpectedly: {how}\n{console}")]
    GuestEnded {
        /// How.
        how: String,
        /// The last lines of its console.
        console: String,
    },
    /// The agent does not answer, but the guest runs.
    #[error("no answer from the agent in the guest\n{console}")]
    NoAnswer {
        /// What was asked.
        #[source]
        source: CallError,
        /// The last lines of the guest's console.
        console: String,
    },
    /// Stopped before any container ran.
    #[error("stopped")]
    Stopped,
}

/// Who refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The pod or the caller.
    Configuration,
    /// The machine that runs the sandbox.
    Machine,
    /// Init in the guest, comparing HOST_DATA.
    Init,
    /// The policy in the guest.
    Policy,
    /// dm-verity in the guest's kernel.
    Verity,
    /// The agent in the guest.
    Agent,
    /// The guest as a whole.
    Guest,
    /// The person who stopped it.
    User,
}

impl SandboxError {
    /// Who refused or failed.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Config { .. } | Self::Request(_) => Blame::Configuration,
            Self::Vm(_) | Self::Io { .. } => Blame::Machine,
            Self::RefusedByInit { .. } => Blame::Init,
            Self::DeniedByPolicy { .. } => Blame::Policy,
            Self::LayerRefused { .. } => Blame::Verity,
            Self::AgentFailed { .. } => Blame::Agent,
            Self::GuestEnded { .. } | Self::NoAnswer { .. } => Blame::Guest,
            Self::Stopped => Blame::User,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

pub(crate) fn how(exit: &VmExit) -> String {
    match exit {
        VmExit::PoweredOff => "it powered itself off".into(),
        VmExit::Reset => "it reset itself, as a kernel panic does".into(),
        VmExit::Stopped => "it was stopped".into(),
        VmExit::Crashed { process, status } => format!("{process} ended: {status}"),
    }
}

fn about(container: &Option<String>) -> String {
    container.as_ref().map(|name| format!(", container {name:?}")).unwrap_or_default()
}
