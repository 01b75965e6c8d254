//! The socket that containers use: HTTP/1.1 on a unix socket, so that any language and `curl --unix-socket` can ask.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/keys/{id}` | 200 `{"key": base64, "kind": "oct" or "opaque"}` |
//! | `POST /v1/evidence` with `{"runtime_data": base64}` | 200 the evidence document; REPORT_DATA is SHA-256 of the runtime data, then zeros |
//!
//! A key id is written as it is: its slashes are slashes of the path. Errors are `{"error": words}`, with `refused_by` and `unmet` when the
//! key service refused: 400 request, 403 refused, 404 no such key or path, 405 method, 413 too long, 502 key service, 503 no report,
//! 504 too slow. Each connection carries one request.
//!
//! hyper, since a container's HTTP is hostile input and hyper's parser of it is the one that is used and fuzzed most; the agent has tokio already.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ah_release_api::KeyId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{self, Answer};
use crate::client::{ReleaseClient, ReleaseError};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Exchanges with TEE and key service at once; each holds a thread.
const MAX_EXCHANGES: usize = 8;
/// Longest request body: 64 KiB of runtime data in base64, and room around it.
const MAX_BODY_BYTES: usize = 90 * 1024;
/// Longest runtime data, bytes.
const MAX_RUNTIME_DATA_BYTES: usize = 64 * 1024;
/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a connection as a whole, the wait for a free exchange in it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the kernel could not give a connection (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("release socket {path}: {step}")]
pub struct ServerError {
    /// Where.
    pub path: PathBuf,
    /// What was being done.
    pub step: &'static str,
    /// The cause.
    pub source: io::Error,
}

/// Asked before each key and each evidence document: whether the pod's policy lets containers have them now, or why not.
pub type Admission =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The socket, listening.
pub struct ReleaseServer {
    admission: Admission,
    listener: UnixListener,
    client: Arc<ReleaseClient>,
    path: PathBuf,
}

impl ReleaseServer {
    /// Makes the socket at `path`, mode 0666: who may reach it is decided by which containers get the mount. A socket left there is replaced,
    /// anything else is not. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`] with the step that failed.
    pub fn bind(
        path: &Path,
        client: Arc<ReleaseClient>,
        admission: Admission,
    ) -> Result<Self, ServerError> {
        let failed = |step| move |source| ServerError { path: path.to_owned(), step, source };
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .map_err(failed("make folder"))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(path).map_err(failed("remove old socket"))?;
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("bind"))?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed("set mode"))?;
        Ok(Self { admission, listener, client, path: path.to_owned() })
    }

    /// Serves until dropped.
    pub async fn serve(self) -> Infallible {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let exchanges = Arc::new(Semaphore::new(MAX_EXCHANGES));
        loop {
            // Never closed, so a permit always comes.
            let Ok(permit) = connections.clone().acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (client, exchanges) = (self.client.clone(), exchanges.clone());
                    let admission = self.admission.clone();
                    tokio::spawn(async move {
                        // A connection that fails or takes too long concerns nobody but its container.
                        let _ = timeout(
                            CONNECTION_TIMEOUT,
                            serve_connection(stream, admission, client, exchanges),
                        )
                        .await;
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_connection(
    stream: UnixStream,
    admission: Admission,
    client: Arc<ReleaseClient>,
    exchanges: Arc<Semaphore>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let (client, exchanges, admitted) = (client.clone(), exchanges.clone(), admission());
        async move { Ok::<_, Infallible>(respond(request, admitted, client, exchanges).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .keep_alive(false)
        // Bodies are written from where they are, not copied beside the head: a key's bytes stay in memory that is wiped.
        .writev(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// What a container asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Key(KeyId),
    Evidence { runtime_data: Vec<u8> },
}

async fn respond(
    request: Request<Incoming>,
    admitted: impl Future<Output = Result<(), String>>,
    client: Arc<ReleaseClient>,
    exchanges: Arc<Semaphore>,
) -> Answer {
    let wanted = match read(request).await {
        Ok(wanted) => wanted,
        Err(answer) => return *answer,
    };
    if let Err(words) = admitted.await {
        return answer::error(StatusCode::FORBIDDEN, &words);
    }
    let Ok(permit) = exchanges.acquire_owned().await else {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "release socket is closing");
    };
    let exchange = tokio::task::spawn_blocking(move || {
        let answer = carry_out(&client, wanted);
        drop(permit);
        answer
    });
    match exchange.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => answer::failure(&error),
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "exchange was broken off"),
    }
}

fn carry_out(client: &ReleaseClient, wanted: Wanted) -> Result<Answer, ReleaseError> {
    match wanted {
        Wanted::Key(id) => client.release(&id).map(|key| answer::key(&key)),
        Wanted::Evidence { runtime_data } => {
            client.evidence(runtime_data).map(|evidence| answer::evidence(&evidence))
        }
    }
}

/// Request to what it asks for, or the answer that says what is wrong with it.
async fn read(request: Request<Incoming>) -> Result<Wanted, Box<Answer>> {
    let bad = |words: &str| Box::new(answer::error(StatusCode::BAD_REQUEST, words));
    if request.uri().query().is_some() {
        return Err(bad("request has a query, expected none"));
    }
    let path = request.uri().path().to_owned();
    if let Some(id) = path.strip_prefix("/v1/keys/") {
        return match *request.method() {
            Method::GET => id.parse().map(Wanted::Key).map_err(|error| bad(&format!("{error}"))),
            _ => Err(Box::new(answer::wrong_method("GET"))),
        };
    }
    if path == "/v1/evidence" {
        return match *request.method() {
            Method::POST => read_evidence(request.into_body()).await,
            _ => Err(Box::new(answer::wrong_method("POST"))),
        };
    }
    let words = "path is not known, expected /v1/keys/<id> or /v1/evidence";
    Err(Box::new(answer::error(StatusCode::NOT_FOUND, words)))
}

async fn read_evidence(body: Incoming) -> Result<Wanted, Box<Answer>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        runtime_data: String,
    }
    let bad = |words: String| Box::new(answer::error(StatusCode::BAD_REQUEST, &words));
    if body.size_hint().lower() > u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX) {
        return Err(too_long());
    }
    let bytes = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_long()),
        Err(error) => return Err(bad(format!("request body cannot be read: {error}"))),
    };
    let body: Body = serde_json::from_slice(&bytes).map_err(|error| {
        bad(format!("request body is not {{\"runtime_data\": base64}}: {error}"))
    })?;
    let runtime_data = STANDARD
        .decode(&body.runtime_data)
        .map_err(|error| bad(format!("runtime_data is not standard base64: {error}")))?;
    match runtime_data.len() {
        ..=MAX_RUNTIME_DATA_BYTES => Ok(Wanted::Evidence { runtime_data }),
        _ => Err(too_long()),
    }
}

fn too_long() -> Box<Answer> {
    let words = "request is too long, expected at most 65536 bytes of runtime data";
    Box::new(answer::error(StatusCode::PAYLOAD_TOO_LARGE, words))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
