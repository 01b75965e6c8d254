//! A collector of traces for tests: `trace-collector ADDRESS FILE` writes each span that it gets as a line of JSON.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tonic::{Request, Response, Status};

struct Collector(Mutex<File>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_service in request.into_inner().resource_spans {
            let attributes = of_service.resource.map(|resource| resource.attributes);
            let service = value(attributes.as_deref().unwrap_or_default(), "service.name");
            for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                writeln!(file, "{}", line(&service, &span))?;
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn line(service: &str, span: &Span) -> serde_json::Value {
    json!({
        "service": service,
        "trace": hex(&span.trace_id),
        "span": hex(&span.span_id),
        "parent": hex(&span.parent_span_id),
        "name": span.name,
        "sandbox": value(&span.attributes, "anchorhold.sandbox"),
        "begin": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "error": span.status.as_ref().map(|status| &status.message).filter(|text| !text.is_empty()),
    })
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: trace-collector ADDRESS FILE";
    let address: SocketAddr = args.next().context(usage)?.parse().context(usage)?;
    let file = File::create(args.next().context(usage)?)?;
    let service = TraceServiceServer::new(Collector(Mutex::new(file)));
    tonic::transport::Server::builder().add_service(service).serve(address).await?;
    Ok(())
}
