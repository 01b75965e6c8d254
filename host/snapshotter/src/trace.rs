//! Which trace a call of containerd's belongs to.

use std::time::{Instant, SystemTime};

use ah_agent_api::TraceParent;
use ah_containerd_api::Status;
use ah_metrics::{Span, next_span};
use tracing::Instrument as _;

use crate::spans::{Spans, Whose};

/// Does a call's work: lines meanwhile say its trace, and a collector is told of it where the caller keeps that trace.
pub(crate) async fn lead<T>(
    spans: Option<&Spans>,
    path: &'static str,
    said: Option<TraceParent>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(said) = said else { return work.await };
    let method = path.rsplit('/').next().unwrap_or(path);
    let here = said.with_span(next_span());
    let (began, clock) = (SystemTime::now(), Instant::now());
    let (trace, span) = (here.trace_id(), here.span_id());
    let line = tracing::info_span!("call", method, %trace, %span);
    let answer = async {
        let answer = work.await;
        tracing::debug!(ms = clock.elapsed().as_millis(), "done");
        answer
    };
    let answer = answer.instrument(line).await;
    if let Some(spans) = spans.filter(|_| said.is_sampled()) {
        let span = Span {
            at: here.to_string(),
            above: Some(said.to_string()),
            name: method.to_owned(),
            subject: String::new(),
            begin: 0,
            end: 0,
            error: None,
        };
        let reason = answer.as_ref().err().map(|status| status.message().to_owned());
        spans.give(Whose::Snapshotter, &span.lasting(began, clock.elapsed()).failed(reason));
    }
    answer
}
