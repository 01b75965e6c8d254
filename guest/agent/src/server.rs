//! ttrpc: frames in, frames out. The crate refuses frames over 4 MiB with an error and keeps the connection; what is inside a frame
//! is the gate's to read.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ah_agent_api::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use ah_agent_api::{AGENT_SERVICE, HEALTH_SERVICE, METHODS, TRACEPARENT, TraceParent, decode};
use ah_release::MAX_WRITE_BYTES;
use async_trait::async_trait;
use futures_util::Stream;
use protobuf::Message as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use ttrpc::r#async::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::{Request, Response};

use crate::console::in_trace;
use crate::effects::Effects;
use crate::failure::Failure;
use crate::gate::Gate;

/// What Kata's health service calls the protocol's version.
const GRPC_VERSION: &str = "0.0.1";

/// A method of the agent service.
struct AgentMethod<E> {
    name: &'static str,
    gate: Gate<E>,
}

/// A method of the health service: it tells nothing about the pod and no policy decides it.
struct HealthMethod {
    name: &'static str,
}

#[async_trait]
impl<E: Effects> MethodHandler for AgentMethod<E> {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let work = self.gate.call(self.name, request.payload);
        Ok(answer(in_trace(trace(&context.metadata), work).await))
    }
}

#[async_trait]
impl MethodHandler for HealthMethod {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        Ok(answer(health(self.name, &request.payload)))
    }
}

/// Where the host says that a call belongs. It says so for people who read its log: text that is none is as good as none.
fn trace(metadata: &HashMap<String, Vec<String>>) -> Option<TraceParent> {
    metadata.get(TRACEPARENT)?.first()?.parse().ok()
}

fn health(name: &str, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = |source| Failure::Malformed { method: name.to_owned(), source };
    decode::<CheckRequest>(payload).map_err(malformed)?;
    let bytes = match name {
        "Check" => {
            let mut response = HealthCheckResponse::new();
            response.status =
                ah_agent_api::health::health_check_response::ServingStatus::SERVING.into();
            response.write_to_bytes()
        }
        "Version" => {
            let mut response = VersionCheckResponse::new();
            response.grpc_version = GRPC_VERSION.into();
            response.agent_version = crate::AGENT_VERSION.into();
            response.write_to_bytes()
        }
        other => return Err(Failure::NotSupported { method: other.to_owned() }),
    };
    bytes.map_err(|e| Failure::effect("encode the response", &e))
}

fn answer(result: Result<Vec<u8>, Failure>) -> Response {
    let mut response = Response::new();
    match result {
        Ok(payload) => {
            response.payload = payload;
            response.set_status(ttrpc::get_status(ttrpc::Code::OK, ""));
        }
        Err(failure) => {
            response.set_status(ttrpc::get_status(failure.code(), failure.told()));
        }
    }
    response
}

/// The services of the method table.
fn services<E: Effects>(gate: &Gate<E>) -> HashMap<String, Service> {
    let mut services = HashMap::new();
    for service in [AGENT_SERVICE, HEALTH_SERVICE] {
        let mut methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>> = HashMap::new();
        for method in METHODS.iter().filter(|m| m.service == service) {
            let name = method.name;
            let handler: Box<dyn MethodHandler + Send + Sync> = match service {
                AGENT_SERVICE => Box::new(AgentMethod { name, gate: gate.clone() }),
                _ => Box::new(HealthMethod { name }),
            };
            methods.insert(name.to_owned(), handler);
        }
        services.insert(service.to_owned(), Service { methods, streams: HashMap::new() });
    }
    services
}

/// A server that is running, and how many connections it has.
pub struct Running {
    server: Server,
    connections: watch::Receiver<usize>,
}

/// Serves `gate` on the connections that `incoming` gives.
///
/// # Errors
/// ttrpc's own.
pub async fn serve<E, S>(
    gate: &Gate<E>,
    incoming: impl Stream<Item = io::Result<S>> + Send + 'static,
) -> ttrpc::Result<Running>
where
    E: Effects,
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    use futures_util::StreamExt as _;
    let open = Arc::new(watch::Sender::new(0_usize));
    let connections = open.subscribe();
    let counted = incoming.map(move |stream| stream.map(|inner| Counted::new(inner, open.clone())));
    let mut server =
        Server::new().register_service(services(gate)).add_listener(Listener::new(counted));
    server.start().await?;
    Ok(Running { server, connections })
}

impl Running {
    /// Takes no more connections and waits until the host has closed those that are open.
    pub async fn finish(mut self) {
        self.server.stop_listen().await;
        let _ = self.connections.wait_for(|n| *n == 0).await;
    }
}

/// A connection that is counted while it is open.
struct Counted<S> {
    inner: S,
    open: Arc<watch::Sender<usize>>,
}

impl<S> Counted<S> {
    fn new(inner: S, open: Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|n| *n = n.saturating_add(1));
        Self { inner, open }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.open.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let piece = buf.get(..MAX_WRITE_BYTES).unwrap_or(buf);
        Pin::new(&mut self.inner).poll_write(cx, piece)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
