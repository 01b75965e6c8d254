//! Which trace a call of containerd's belongs to, and what the log says of it.
//!
//! With its tracing on, containerd says the trace of the kubelet's request, and that is kept. Otherwise all calls for a pod
//! are in one trace whose id is the pod's UID, which the kubelet's log and the cluster have as well.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use ah_agent_api::{TRACEPARENT, TraceParent};
use ah_agent_client::{Hears, Made, Place, in_trace};
use ah_digest::Sha256;
use ah_metrics::next_span;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::counting;

/// Methods that containerd repeats all the time, or that last as long as the container does: that they are done is said with debugging only, and they are
/// no spans for a collector.
const QUIET: [&str; 5] = ["State", "Pids", "Stats", "Wait", "Connect"];

/// Gives calls their place.
pub(crate) struct Tracer {
    /// Where calls belong that do not say it.
    pod: Option<TraceParent>,
}

/// Where a call belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Called {
    /// Its own span.
    here: TraceParent,
    /// The caller's, where it says one.
    above: Option<TraceParent>,
}

impl Called {
    /// Whether a collector is to hear of it: a caller that says its trace says whether it is kept.
    fn is_kept(&self) -> bool {
        self.above.is_none_or(TraceParent::is_sampled)
    }
}

impl Tracer {
    /// For a pod, or for a container without one.
    pub(crate) fn new(pod_uid: Option<&str>, container_id: &str) -> Self {
        let trace = pod_uid.and_then(uuid).unwrap_or_else(|| {
            let digest = Sha256::of(container_id);
            let half = digest.as_bytes().first_chunk().copied().unwrap_or_default();
            u128::from_be_bytes(half)
        });
        Self { pod: TraceParent::new(trace, 1) }
    }

    /// A span of its own for a call, in the trace that the call says.
    pub(crate) fn call(&self, metadata: &HashMap<String, Vec<String>>) -> Option<Called> {
        let above = metadata.get(TRACEPARENT).and_then(|values| values.first()?.parse().ok());
        let here = above.or(self.pod)?.with_span(next_span());
        Some(Called { here, above })
    }
}

/// Answers a call: all lines meanwhile say its place, and the last one the time that it took. `failure` says why an answer is none.
pub(crate) async fn answer<T>(
    method: &'static str,
    called: Option<Called>,
    work: impl Future<Output = T>,
    failure: impl Fn(&T) -> Option<String>,
) -> T {
    let began = SystemTime::now();
    let timed = async {
        let begun = Instant::now();
        let answer = work.await;
        let took = begun.elapsed();
        let ms = took.as_millis();
        match QUIET.contains(&method) {
            true => tracing::debug!(ms, "done"),
            false => tracing::info!(ms, "done"),
        }
        (answer, took)
    };
    let Some(called) = called else { return timed.await.0 };
    let Called { here, above } = called;
    let (trace, span) = (here.trace_id(), here.span_id());
    let span = tracing::info_span!("call", method, %trace, %span);
    let told = called.is_kept() && !QUIET.contains(&method);
    let place = Place { here, hears: told.then_some(HEARS) };
    let (answer, took) = in_trace(place, timed.instrument(span)).await;
    if told {
        counting::span(here, above, method, (began, took), failure(&answer));
    }
    answer
}

/// Calls to the guest are spans, too.
const HEARS: Hears = Hears { number: next_span, ended: tell };

fn tell(made: &Made<'_>) {
    let name = format!("guest {}", made.method);
    let failure = made.error.map(ToString::to_string);
    counting::span(made.here, Some(made.parent), &name, (made.began, made.took), failure);
}

/// A stage of the VM's start, reached after so long, as a span of the call at `place`, which asked for it.
pub(crate) fn stage(place: Option<Place>, name: &str, after: Duration) {
    let told = place.filter(|place| place.hears.is_some());
    if let (Some(place), Some(began)) = (told, SystemTime::now().checked_sub(after)) {
        let here = place.here.with_span(next_span());
        counting::span(here, Some(place.here), &format!("VM: {name}"), (began, after), None);
    }
}

/// Spawns work that outlives the call that began it, and belongs where the call does.
pub(crate) fn spawn(
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let Some(place) = ah_agent_client::place() else { return tokio::spawn(work) };
    let (trace, span) = (place.here.trace_id(), place.here.span_id());
    let span = tracing::info_span!(parent: None, "task", what, %trace, %span);
    tokio::spawn(in_trace(place, work.instrument(span)))
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
        let called = tracer.call(&metadata).unwrap();
        let first = called.here;
        assert!(called.is_kept());
        assert_eq!(first.trace_id().to_string(), expect);
        let second = tracer.call(&metadata).unwrap().here;
        assert_ne!(first.span_id().to_string(), second.span_id().to_string());
    }

    #[test]
    fn the_kubelets_trace_is_kept_or_the_pods_uid_is_one() {
        let pod = "b5f1fcbe0b1a4f3e9d0e6a3f4e2f8a11";
        check(Some(UID), None, pod);
        check(Some(UID), Some("not a trace"), pod);
        let said = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check(Some(UID), Some(said), "4bf92f3577b34da6a3ce929d0e0e4736");
        let dropped = said.replace("-01", "-00");
        let metadata = HashMap::from([(TRACEPARENT.to_owned(), vec![dropped])]);
        assert!(!Tracer::new(None, "0").call(&metadata).unwrap().is_kept());
        let of_the_id = &Sha256::of("0123").to_string()[..32];
        check(None, None, of_the_id);
        check(Some("somebody"), None, of_the_id);
    }

    /// What goes wrong in a poll, and in what goes on after a call, is looked for by the pod's id, too.
    #[tokio::test]
    async fn all_lines_say_the_trace_and_polls_are_not_told_of() {
        let (lines, _guard) = Captured::start();
        let called = Tracer::new(Some(UID), "0123").call(&HashMap::new());
        let call = async |method| {
            let work = async {
                tracing::error!("{method} failed");
                spawn("later", async {
                    assert!(ah_agent_client::place().is_some());
                    tracing::warn!("later");
                })
                .await
            };
            answer(method, called, work, |_| None).await.unwrap();
            lines.take()
        };
        let trace = format!("trace={}", called.unwrap().here.trace_id());
        let (poll, create) = (call("State").await, call("Create").await);
        for line in poll.iter().chain(&create) {
            assert!(line.contains(&trace), "{line}");
        }
        assert_eq!((poll.len(), create.len()), (2, 3), "{poll:?} {create:?}");
        assert!(create[2].contains("method=\"Create\"") && create[2].contains("done ms="));
    }
}
