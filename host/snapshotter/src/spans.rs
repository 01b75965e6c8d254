//! Spans on their way to a collector of traces.
//!
//! Source: OpenTelemetry Protocol 1.x (OTLP/gRPC, `opentelemetry.proto.collector.trace.v1.TraceService`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ah_agent_api::TraceParent;
use ah_metrics::Span;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

/// Spans that wait for the collector; what comes beyond them is lost.
const KEPT: usize = 4096;
/// Most spans in one message.
const MOST: usize = 512;
/// Between two messages: spans of one request come together.
const PAUSE: Duration = Duration::from_secs(1);
/// For one message to be taken.
const LIMIT: Duration = Duration::from_secs(10);

/// Whose span it is, as collectors show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A pod's shim.
    Shim,
    /// The snapshotter.
    Snapshotter,
}

impl Whose {
    fn service(self) -> &'static str {
        match self {
            Self::Shim => "anchorhold-shim",
            Self::Snapshotter => "anchorhold-snapshotter",
        }
    }
}

/// The way to the collector. Nobody waits for it.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<(Whose, proto::Span)>,
    lost: Arc<AtomicU64>,
}

/// An address that is none of a collector.
#[derive(Debug, thiserror::Error)]
#[error(
    "otlp: found {found:?}, expected http://HOST:PORT of an OpenTelemetry collector that speaks gRPC without TLS; hint: one on this node, port 4317"
)]
pub struct CollectorError {
    found: String,
}

/// Opens the way to the collector at `address`. The second is the work of carrying, for a task of its own.
///
/// # Errors
/// [`CollectorError`]. That nobody answers there is no error: it is logged, and tried again.
pub fn to(
    address: &str,
) -> Result<(Spans, impl Future<Output = Infallible> + use<>), CollectorError> {
    let wrong = || CollectorError { found: address.chars().take(100).collect() };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong())?;
    let uri = endpoint.uri();
    let plain = uri.scheme_str() == Some("http")
        && uri.host().is_some_and(|host| !host.is_empty())
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    if !plain {
        return Err(wrong());
    }
    let (queue, waiting) = mpsc::channel(KEPT);
    let lost = Arc::new(AtomicU64::new(0));
    let spans = Spans { queue, lost: Arc::clone(&lost) };
    let address = address.to_owned();
    let carry = async move {
        let client = TraceServiceClient::new(endpoint.connect_lazy());
        carry(client, &address, waiting, &lost).await
    };
    Ok((spans, carry))
}

impl Spans {
    /// Hands a span over. One with a place that is none, or for which there is no room, is lost.
    pub fn give(&self, whose: Whose, span: &Span) {
        let given = converted(span).is_some_and(|span| self.queue.try_send((whose, span)).is_ok());
        if !given {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn carry(
    mut client: TraceServiceClient<Channel>,
    address: &str,
    mut waiting: mpsc::Receiver<(Whose, proto::Span)>,
    lost: &AtomicU64,
) -> Infallible {
    let mut fails = false;
    loop {
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, MOST).await == 0 {
            // nobody is left who could hand one over
            std::future::pending::<()>().await;
        }
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = tokio::time::timeout(LIMIT, client.export(message(batch))).await;
        let failure = match sent {
            Ok(Ok(answer)) => {
                let refused = answer.into_inner().partial_success.filter(|p| p.rejected_spans > 0);
                refused.map(|p| format!("refused {}: {}", p.rejected_spans, p.error_message))
            }
            Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => Some(format!("no answer within {} s", LIMIT.as_secs())),
        };
        match (&failure, fails) {
            (Some(error), false) => {
                tracing::warn!(error, address, "spans do not reach the collector, and are lost");
            }
            (None, true) => {
                let lost = lost.swap(0, Ordering::Relaxed);
                tracing::info!(address, lost, "spans reach the collector again");
            }
            _ => {}
        }
        fails = failure.is_some();
        if fails {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn message(spans: Vec<(Whose, proto::Span)>) -> ExportTraceServiceRequest {
    let mut by_service: BTreeMap<Whose, Vec<proto::Span>> = BTreeMap::new();
    for (whose, span) in spans {
        by_service.entry(whose).or_default().push(span);
    }
    let resource_spans = by_service.into_iter().map(|(whose, spans)| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", whose.service())],
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "anchorhold".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..Default::default()
            }),
            spans,
            ..Default::default()
        }],
        ..Default::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// Attributes' names are ours but for `rpc.method` (OpenTelemetry semantic conventions 1.x, RPC).
fn converted(span: &Span) -> Option<proto::Span> {
    let (trace_id, span_id) = span.at.parse::<TraceParent>().ok()?.to_bytes();
    let parent_span_id = match &span.above {
        Some(above) => above.parse::<TraceParent>().ok()?.to_bytes().1.to_vec(),
        None => Vec::new(),
    };
    let status = span
        .error
        .as_ref()
        .map(|error| Status { message: error.clone(), code: StatusCode::Error.into() });
    let subject = (!span.subject.is_empty()).then(|| text("anchorhold.sandbox", &span.subject));
    Some(proto::Span {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        parent_span_id,
        name: span.name.clone(),
        start_time_unix_nano: span.begin,
        end_time_unix_nano: span.end.max(span.begin),
        attributes: std::iter::once(text("rpc.method", &span.name)).chain(subject).collect(),
        status,
        ..Default::default()
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        Span {
            at: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
            above: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000b8-01".into()),
            name: "Create".into(),
            subject: "c".into(),
            begin: 7,
            end: 5,
            error: Some("no".into()),
        }
    }

    #[test]
    fn ids_and_failures_are_the_spans() {
        let found = converted(&span()).unwrap();
        assert_eq!(
            (found.trace_id[0], found.span_id[7], found.parent_span_id[7]),
            (0x4b, 0xb7, 0xb8)
        );
        assert_eq!((found.start_time_unix_nano, found.end_time_unix_nano), (7, 7));
        assert_eq!(found.status.unwrap().message, "no");
        assert!(converted(&Span { at: "x".into(), ..span() }).is_none());
        assert!(converted(&Span { above: Some("x".into()), ..span() }).is_none());
    }

    #[test]
    fn each_service_has_its_spans() {
        let of = |whose| (whose, converted(&span()).unwrap());
        let message = message(vec![of(Whose::Shim), of(Whose::Snapshotter), of(Whose::Shim)]);
        let counts = message.resource_spans.iter().map(|all| all.scope_spans[0].spans.len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 1]);
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_with_what_is_expected() {
        for address in
            ["127.0.0.1:4317", "https://collector:4317", "http://", "http://c/v1/traces", ""]
        {
            let error = to(address).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("http://HOST:PORT"), "{error}");
        }
        assert!(to("http://127.0.0.1:4317").is_ok());
    }
}
