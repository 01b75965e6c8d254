//! Spans reach a collector over the wire, those of the snapshotter's own calls among them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ah_agent_api::TraceParent;
use ah_containerd_api::{Code, Snapshotter as _, Status};
use ah_metrics::Metrics;
use ah_snapshotter::{Service, spans};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.send(span).unwrap();
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collect(address: SocketAddr) -> mpsc::UnboundedReceiver<Span> {
    let (give, spans) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let service = TraceServiceServer::new(Collector(give));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    spans
}

async fn fail(service: &Service, said: Option<TraceParent>) {
    let work = async { Err::<(), _>(Status::new(Code::NotFound, "no such snapshot")) };
    service.lead("/containerd.services.snapshots.v1.Snapshots/Stat", said, work).await.unwrap_err();
}

/// The collector is away at first, and nobody waits for it.
#[tokio::test]
async fn a_call_in_a_trace_that_is_kept_is_a_span_and_others_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (spans, carry) = spans::to(&format!("http://{address}")).unwrap();
    tokio::spawn(carry);
    let nowhere = Path::new("/not/there");
    let metrics = Arc::new(Metrics::default());
    let service = ah_snapshotter::open(folder.path(), nowhere, 1, metrics, Some(spans)).unwrap();
    let said = |text: &str| Some(text.parse().unwrap());
    let kept = said("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let dropped = said("00-4bf92f3577b34da6a3ce929d0e0e4736-00e067aa0ba902b7-00");
    fail(&service, kept).await;

    let mut collected = collect(address).await;
    // What was told while it was away may be lost.
    let span = loop {
        fail(&service, None).await;
        fail(&service, dropped).await;
        fail(&service, kept).await;
        let waiting = tokio::time::timeout(Duration::from_secs(2), collected.recv());
        match waiting.await {
            Ok(span) => break span.unwrap(),
            Err(_) => continue,
        }
    };
    let parent = span.parent_span_id[1];
    assert_eq!((span.name.as_str(), span.trace_id[0], parent), ("Stat", 0x4b, 0xf0));
    assert_ne!(span.span_id, span.parent_span_id);
    assert_eq!(span.status.unwrap().message, "no such snapshot");
    while let Ok(Some(span)) = tokio::time::timeout(Duration::from_secs(3), collected.recv()).await
    {
        assert_eq!(span.parent_span_id[1], 0xf0, "of a call that said to keep it: {span:?}");
    }
}
