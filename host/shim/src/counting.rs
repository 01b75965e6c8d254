//! What the node counts of this pod, and spans of its calls.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use ah_agent_api::TraceParent;

use ah_metrics::{EVENTS_SOCKET, Event, Sender, Span};
use ah_sandbox::{Blame, SandboxError, StageName};

use crate::ShimError;

/// A shim is of one pod and one configuration.
static SENDER: OnceLock<Sender> = OnceLock::new();

/// The way to who counts on this node, as the configuration has it.
pub(crate) fn to(socket: &Path) -> &'static Sender {
    SENDER.get_or_init(|| Sender::new(socket))
}

/// The same, for what fails before there is a configuration, too.
fn sender() -> &'static Sender {
    to(Path::new(EVENTS_SOCKET))
}

/// Tells of a call that failed, if it is one to count.
pub(crate) fn failed(error: &ShimError) {
    if let Some(event) = event(error) {
        sender().send(&event);
    }
}

/// The sandbox that spans are about.
static SANDBOX: OnceLock<String> = OnceLock::new();

/// Says which sandbox this shim has.
pub(crate) fn of(sandbox_id: &str) {
    let _ = SANDBOX.set(sandbox_id.to_owned());
}

/// Tells of a call that began then, took so long, and failed for that reason, if it did.
pub(crate) fn span(
    at: TraceParent,
    above: Option<TraceParent>,
    name: &str,
    (began, took): (SystemTime, Duration),
    failure: Option<String>,
) {
    let span = Span {
        at: at.to_string(),
        above: above.map(|above| above.to_string()),
        name: name.to_owned(),
        subject: SANDBOX.get().cloned().unwrap_or_default(),
        begin: 0,
        end: 0,
        error: None,
    };
    sender().send(&Event::Span(span.lasting(began, took).failed(failure)));
}

/// Whether a stage is one of a VM's way up: what comes later takes as long as the workload likes.
pub(crate) fn is_of_a_start(stage: StageName) -> bool {
    matches!(stage, StageName::VmStarted | StageName::KernelUp | StageName::AgentReady)
}

/// What containerd asks of containers that are not there, or not in that state, is its daily life.
fn event(error: &ShimError) -> Option<Event> {
    match error {
        ShimError::NotFound { .. } | ShimError::Exists { .. } | ShimError::State { .. } => None,
        ShimError::Sandbox(SandboxError::DeniedByPolicy { method, .. }) => {
            Some(Event::Denied { method: (*method).to_owned() })
        }
        ShimError::Sandbox(error) => Some(Event::Failed { blame: blame(error.blame()).to_owned() }),
        ShimError::NoPolicy { .. }
        | ShimError::Policy(_)
        | ShimError::Convert(_)
        | ShimError::Config(_)
        | ShimError::Request { .. }
        | ShimError::Unsupported { .. } => {
            Some(Event::Failed { blame: blame(Blame::Configuration).to_owned() })
        }
        _ => Some(Event::Failed { blame: blame(Blame::Machine).to_owned() }),
    }
}

fn blame(blame: Blame) -> &'static str {
    match blame {
        Blame::Configuration => "configuration",
        Blame::Machine => "machine",
        Blame::Init => "init",
        Blame::Policy => "policy",
        Blame::Verity => "verity",
        Blame::Agent => "agent",
        Blame::Guest => "guest",
        Blame::User => "user",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_told_apart_from_failures() {
        let denied = SandboxError::DeniedByPolicy {
            method: "ExecProcess",
            container: None,
            reason: "no".into(),
        };
        let expect = Event::Denied { method: "ExecProcess".into() };
        assert_eq!(event(&ShimError::Sandbox(denied)), Some(expect));
        let ended = SandboxError::Config { detail: "x".into() };
        let expect = Event::Failed { blame: "configuration".into() };
        assert_eq!(event(&ShimError::Sandbox(ended)), Some(expect));
        let config = crate::ConfigError::Options { found: "x".into() };
        let request = ShimError::Request { field: "x", found: "y".into(), expected: "z" };
        for wrong in [ShimError::Config(config), request] {
            let expect = Event::Failed { blame: "configuration".into() };
            assert_eq!(event(&wrong), Some(expect));
        }
        let network = ShimError::network("x")(std::io::Error::from(std::io::ErrorKind::Other));
        assert_eq!(event(&network), Some(Event::Failed { blame: "machine".into() }));
    }

    /// What docs/node.md lists.
    #[test]
    fn stages_of_a_start_are_counted_and_no_others() {
        use StageName::{AgentReady, ContainerEnded, FirstOutput, KernelUp, VmEnded, VmStarted};
        assert!([VmStarted, KernelUp, AgentReady].into_iter().all(is_of_a_start));
        assert!(![FirstOutput, ContainerEnded, VmEnded].into_iter().any(is_of_a_start));
    }
}
