//! The application: what all routes share, and what every request passes before a route sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ah_keyservice::{AnswerSigner, KeyService, TokenVerifier};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::json;

use crate::callers::{Callers, Refusal};
use crate::error::ApiError;
use crate::limits::{Connections, Rate};
use crate::metrics::Metrics;
use crate::roles::{ROUTES, Role, access};
use crate::{openapi, own_routes, vault_routes};

/// Bounds of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of a request, bytes.
    pub body_bytes: usize,
    /// Most open connections.
    pub connections: usize,
    /// Most open connections of one address.
    pub connections_per_client: usize,
    /// Requests a second of one address; twice as many in a burst.
    pub requests_per_second: u32,
    /// Time for a TLS handshake, and for the head of each request.
    pub header_timeout: Duration,
    /// Time for a request as a whole.
    pub request_timeout: Duration,
    /// Time that open requests have to end when the service is told to stop.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 256 * 1024,
            connections: 4096,
            connections_per_client: 256,
            requests_per_second: 1000,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// What the service is made of.
pub struct Parts {
    /// Keys and log.
    pub service: Arc<KeyService>,
    /// Callers and what they may do.
    pub callers: Callers,
    /// Whose attestation tokens are believed.
    pub attestation: Box<dyn TokenVerifier>,
    /// Signs answers to releases by token.
    pub signer: AnswerSigner,
    /// `https://host[:port]`, as clients call this service.
    pub url: String,
    /// Bounds.
    pub limits: Limits,
}

/// What routes see.
pub(crate) struct App {
    pub(crate) service: Arc<KeyService>,
    pub(crate) callers: Callers,
    pub(crate) attestation: Box<dyn TokenVerifier>,
    pub(crate) signer: AnswerSigner,
    pub(crate) url: String,
    pub(crate) limits: Limits,
    pub(crate) connections: Connections,
    rate: Rate,
    metrics: Metrics,
}

pub(crate) type Shared = State<Arc<App>>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// DER of the client certificate, which the configured authority has signed.
    pub(crate) certificate: Option<Arc<Vec<u8>>>,
}

/// The caller of a request that passed: its name, where the route asks for one.
#[derive(Debug, Clone)]
pub(crate) struct CallerName(pub(crate) Option<String>);

impl App {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Limits { connections, connections_per_client, requests_per_second, .. } = parts.limits;
        Arc::new(Self {
            service: parts.service,
            callers: parts.callers,
            attestation: parts.attestation,
            signer: parts.signer,
            url: parts.url,
            limits: parts.limits,
            connections: Connections::new(connections_per_client, connections),
            rate: Rate::new(requests_per_second),
            metrics: Metrics::default(),
        })
    }
}

/// All routes. `more` are routes of others, which guard themselves; they share the limits.
pub(crate) fn router(app: &Arc<App>, more: Router) -> Router {
    let own = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(|| async { Json(openapi::document()) }))
        .route("/v1/identity", get(own_routes::identity))
        .route("/v1/challenge", post(own_routes::challenge))
        .route("/v1/release", post(own_routes::release))
        .route("/v1/log/head", get(own_routes::head))
        .route("/v1/log/entries", get(own_routes::entries))
        .route("/v1/log/inclusion/{seq}", get(own_routes::inclusion))
        .route("/v1/log/consistency/{size}", get(own_routes::consistency))
        .route("/v1/backup", get(own_routes::backup))
        .merge(vault_routes::router())
        .route_layer(from_fn_with_state(app.clone(), guard))
        .with_state(app.clone());
    own.merge(more)
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "NotFound", "there is no such route")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this route has no such method",
            )
        })
        .layer(DefaultBodyLimit::max(app.limits.body_bytes))
        .layer(from_fn_with_state(app.clone(), bound))
}

/// Rate, time, counts: for every request, whoever answers it.
async fn bound(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    if !app.rate.admits(peer.address, start) {
        return ApiError::busy().into_response();
    }
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let answer = tokio::time::timeout(app.limits.request_timeout, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| {
        let message = "the request took too long";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message).into_response()
    });
    let of = |route: &&crate::roles::Route| {
        Some(route.path) == path.as_deref() && route.method == method.as_str()
    };
    let (method, path) =
        ROUTES.iter().find(of).map_or(("other", "other"), |route| (route.method, route.path));
    app.metrics.request(method, path, answer.status().as_u16(), start.elapsed());
    answer
}

/// Nobody gets to a route that the table does not let through.
async fn guard(
    State(app): Shared,
    Extension(peer): Extension<Peer>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let refused = || ApiError::forbidden("this route is open to nobody");
    let method = if request.method() == "HEAD" { "GET" } else { request.method().as_str() };
    let access = access(method, path.as_str()).ok_or_else(refused)?;
    let certificate = peer.certificate.as_deref().map(Vec::as_slice);
    match app.callers.admit(access, request.headers(), certificate, SystemTime::now()) {
        Ok(caller) => {
            request.extensions_mut().insert(CallerName(caller));
            Ok(next.run(request).await)
        }
        Err(Refusal::Unknown(reason)) => {
            app.service
                .note_refused_access(None, &format!("{method} {}: {reason}", path.as_str()))
                .await;
            Err(ApiError::unauthorized(reason, &app.url))
        }
        Err(Refusal::Role { caller, needed }) => {
            let names: Vec<_> = needed.iter().map(|role: &Role| role.name()).collect();
            let reason = format!("{caller} may not do this: expected role {}", names.join(" or "));
            app.service
                .note_refused_access(
                    Some(&caller),
                    &format!("{method} {}: {reason}", path.as_str()),
                )
                .await;
            Err(ApiError::forbidden(reason))
        }
    }
}

async fn ready(State(app): Shared) -> Response {
    match app.service.ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready");
            let message = "the database does not answer";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
                .into_response()
        }
    }
}

async fn metrics(State(app): Shared) -> Result<Response, ApiError> {
    let entries = app.service.head().await?.size;
    let connections = u64::try_from(app.connections.count()).unwrap_or(u64::MAX);
    let text = app.metrics.text(&[
        ("anchorhold_log_entries", "Entries of the decision log.", entries),
        ("anchorhold_connections", "Open connections.", connections),
    ]);
    Ok(([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// The keys of a JSON object that a client sent, for a message that names the one that is unknown.
pub(crate) fn json_error(error: &serde_json::Error) -> ApiError {
    // The text of a data error may quote a value, and a value may be a key.
    let words = match error.classify() {
        serde_json::error::Category::Data if error.to_string().starts_with("unknown field") => {
            error.to_string()
        }
        serde_json::error::Category::Data if error.to_string().starts_with("missing field") => {
            error.to_string()
        }
        serde_json::error::Category::Data => {
            format!("a member has a wrong type at line {} column {}", error.line(), error.column())
        }
        _ => format!("not JSON at line {} column {}", error.line(), error.column()),
    };
    ApiError::bad(format!("request body: {words}"))
}

/// A page with the address of the next one.
pub(crate) fn page(value: Vec<serde_json::Value>, next: Option<String>) -> Json<serde_json::Value> {
    Json(json!({ "value": value, "nextLink": next }))
}
