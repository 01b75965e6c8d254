//! Which trace a call of containerd's belongs to, and what the log says of it.
//!
//! With its tracing on, containerd says the trace of the kubelet's request, and that is kept. Otherwise all calls for a pod
//! are in one trace whose id is the pod's UID, which the kubelet's log and the cluster have as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use ah_agent_api::{TRACEPARENT, TraceParent};
use ah_agent_client::in_trace;
use ah_digest::Sha256;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Methods that containerd repeats all the time, or that last as long as the container does: that they are done is said with debugging only.
const QUIET: [&str; 5] = ["State", "Pids", "Stats", "Wait", "Connect"];

/// Gives calls their place.
pub(crate) struct Tracer {
    /// Where calls belong that do not say it.
    pod: Option<TraceParent>,
    last_span: AtomicU32,
}

impl Tracer {
    /// For a pod, or for a container without one.
    pub(crate) fn new(pod_uid: Option<&str>, container_id: &str) -> Self {
        let trace = pod_uid.and_then(uuid).unwrap_or_else(|| {
            let digest = Sha256::of(container_id);
            let half = digest.as_bytes().first_chunk().copied().unwrap_or_default();
            u128::from_be_bytes(half)
        });
        Self { pod: TraceParent::new(trace, 1), last_span: AtomicU32::new(0) }
    }

    /// A span of its own for a call, in the trace that the call says.
    pub(crate) fn call(&self, metadata: &HashMap<String, Vec<String>>) -> Option<TraceParent> {
        let said = metadata.get(TRACEPARENT).and_then(|values| values.first()?.parse().ok());
        let number = self.last_span.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let span = u64::from(std::process::id()) << 32 | u64::from(number);
        Some(said.or(self.pod)?.with_span(span))
    }
}

/// Answers a call: all lines meanwhile say its place, and the last one the time that it took.
pub(crate) async fn answer<T>(
    method: &'static str,
    parent: Option<TraceParent>,
    work: impl Future<Output = T>,
) -> T {
    let timed = async {
        let begun = Instant::now();
        let answer = work.await;
        let ms = begun.elapsed().as_millis();
        match QUIET.contains(&method) {
            true => tracing::debug!(ms, "done"),
            false => tracing::info!(ms, "done"),
        }
        answer
    };
    let Some(parent) = parent else { return timed.await };
    let (trace, span) = (parent.trace_id(), parent.span_id());
    let span = tracing::info_span!("call", method, %trace, %span);
    in_trace(parent, timed.instrument(span)).await
}

/// Spawns work that outlives the call that began it, and belongs where the call does.
pub(crate) fn spawn(
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let Some(parent) = ah_agent_client::trace() else { return tokio::spawn(work) };
    let (trace, span) = (parent.trace_id(), parent.span_id());
    let span = tracing::info_span!(parent: None, "task", what, %trace, %span);
    tokio::spawn(in_trace(parent, work.instrument(span)))
}

/// The 128 bits of a UID as Kubernetes writes it (RFC 9562, section 4).
fn uuid(text: &str) -> Option<u128> {
    let digits: String = text.split('-').collect();
    let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| u128::from_str_radix(&digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Captured;

    const UID: &str = "b5f1fcbe-0b1a-4f3e-9d0e-6a3f4e2f8a11";

    #[track_caller]
    fn check(uid: Option<&str>, said: Option<&str>, expect: &str) {
        let tracer = Tracer::new(uid, "0123");
        let metadata = said.map(|said| (TRACEPARENT.to_owned(), vec![said.to_owned()]));
        let metadata = metadata.into_iter().collect();
        let first = tracer.call(&metadata).unwrap();
        assert_eq!(first.trace_id().to_string(), expect);
        let second = tracer.call(&metadata).unwrap();
        assert_ne!(first.span_id().to_string(), second.span_id().to_string());
    }

    #[test]
    fn the_kubelets_trace_is_kept_or_the_pods_uid_is_one() {
        let pod = "b5f1fcbe0b1a4f3e9d0e6a3f4e2f8a11";
        check(Some(UID), None, pod);
        check(Some(UID), Some("not a trace"), pod);
        let said = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check(Some(UID), Some(said), "4bf92f3577b34da6a3ce929d0e0e4736");
        let of_the_id = &Sha256::of("0123").to_string()[..32];
        check(None, None, of_the_id);
        check(Some("somebody"), None, of_the_id);
    }

    /// What goes wrong in a poll, and in what goes on after a call, is looked for by the pod's id, too.
    #[tokio::test]
    async fn all_lines_say_the_trace_and_polls_are_not_told_of() {
        let (lines, _guard) = Captured::start();
        let parent = Tracer::new(Some(UID), "0123").call(&HashMap::new());
        let call = async |method| {
            let work = async {
                tracing::error!("{method} failed");
                spawn("later", async {
                    assert!(ah_agent_client::trace().is_some());
                    tracing::warn!("later");
                })
                .await
            };
            answer(method, parent, work).await.unwrap();
            lines.take()
        };
        let trace = format!("trace={}", parent.unwrap().trace_id());
        let (poll, create) = (call("State").await, call("Create").await);
        for line in poll.iter().chain(&create) {
            assert!(line.contains(&trace), "{line}");
        }
        assert_eq!((poll.len(), create.len()), (2, 3), "{poll:?} {create:?}");
        assert!(create[2].contains("method=\"Create\"") && create[2].contains("done ms="));
    }
}
