use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::address::Stream;
use crate::{Address, Metrics};

const CONNECTIONS: usize = 8;
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept, such as one for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// OpenMetrics 1.0, section 3: what Prometheus takes as its text format, too.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `GET /metrics` at `address` until it is dropped.
///
/// # Errors
/// Nobody can listen there.
pub async fn serve(address: &Address, metrics: Arc<Metrics>) -> io::Result<Infallible> {
    let listener = address.listen().await?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed, so a permit always comes.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { continue };
        let Ok(stream) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let served = async {
                match stream {
                    Stream::Unix(stream) => connection(stream, metrics).await,
                    Stream::Tcp(stream) => connection(stream, metrics).await,
                }
            };
            let _ = timeout(CONNECTION_LIMIT, served).await;
            drop(permit);
        });
    }
}

/// A connection that fails concerns nobody but the one who asks.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, metrics: Arc<Metrics>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let metrics = Arc::clone(&metrics);
        async move { Ok::<_, Infallible>(answer(&request, &metrics)) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "expected GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "expected /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(TEXT);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
