//! The routes of MAA that are served here.
//!
//! | route | answer |
//! |---|---|
//! | `POST /attest/SevSnpVm`, `/attest/TdxVm`, any case, `?api-version=` | 200 `{"token"}` |
//! | `GET /.well-known/openid-configuration` | where the keys are, what is signed how |
//! | `GET /certs` | the key set |
//!
//! Errors are `{"error":{"code","message"}}`: 400 for a request or evidence that is refused, 404, 405, 413.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::claims;
use crate::error::{AttestError, chain};
use crate::request::{RequestError, check_api_version};
use crate::service::AttestationService;

/// Longest request, bytes: a report with chain and endorsements is 40 KB, runtime data up to 64 KiB comes on top.
pub const MAX_BODY_BYTES: usize = 512 * 1024;

/// Most pieces of evidence that are verified at a time: more would only take turns at the processors. The others wait, as long as the server's
/// time for a request lets them.
pub fn verified_at_once() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().saturating_mul(2))
}

/// The routes. Limits of connections and time are the server's.
pub fn router(service: Arc<AttestationService>) -> Router {
    let turns: Turns = Arc::new(Semaphore::new(verified_at_once()));
    Router::new()
        .route("/attest/{kind}", post(attest).fallback(wrong_method))
        .route("/.well-known/openid-configuration", get(discovery).fallback(wrong_method))
        .route("/certs", get(certs).fallback(wrong_method))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(Extension(turns))
        .with_state(service)
}

type Turns = Arc<Semaphore>;

async fn attest(
    Extension(turns): Extension<Turns>,
    State(service): State<Arc<AttestationService>>,
    Path(kind): Path<String>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let bytes = match body {
        Ok(bytes) => bytes,
        Err(rejection) => {
            let code = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "RequestTooLarge",
                _ => "BadRequest",
            };
            return error(rejection.status(), code, &rejection.body_text());
        }
    };
    let attest: fn(&AttestationService, &[u8]) -> Result<String, AttestError> =
        match kind.to_ascii_lowercase().as_str() {
            "sevsnpvm" => AttestationService::attest_snp,
            "tdxvm" => AttestationService::attest_tdx,
            "sgxenclave" | "openenclave" | "azureguest" => {
                let words = format!("evidence of kind {kind} is not verified by this service");
                return error(StatusCode::BAD_REQUEST, "NotSupported", &words);
            }
            _ => {
                let words = "kind of evidence is not known, expected SevSnpVm or TdxVm";
                return error(StatusCode::NOT_FOUND, "NotFound", words);
            }
        };
    if let Err(refused) = check_api_version(api_version(query.as_deref()).as_deref()) {
        return failure(&refused.into());
    }
    let Ok(turn) = turns.acquire_owned().await else {
        return failure(&AttestError::Internal("the service ends"));
    };
    // Signatures take milliseconds: not on a thread that serves others. Who hangs up keeps its turn until the work is done.
    let work = move || {
        let answer = attest(&service, &bytes);
        drop(turn);
        answer
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(token)) => answer(StatusCode::OK, &json!({ "token": token })),
        Ok(Err(refused)) => failure(&refused),
        Err(_) => failure(&AttestError::Internal("the attempt was broken off")),
    }
}

async fn discovery(State(service): State<Arc<AttestationService>>) -> Response<Body> {
    let issuer = service.issuer();
    let mut algorithms: Vec<Value> = Vec::new();
    for algorithm in service.jwks().keys.into_iter().filter_map(|key| key.alg) {
        if !algorithms.contains(&Value::String(algorithm.clone())) {
            algorithms.push(algorithm.into());
        }
    }
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/certs"),
        "response_types_supported": ["token", "none"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": claims::NAMES.as_slice(),
    });
    answer(StatusCode::OK, &document)
}

async fn certs(State(service): State<Arc<AttestationService>>) -> Response<Body> {
    match serde_json::to_value(service.jwks()) {
        Ok(keys) => answer(StatusCode::OK, &keys),
        Err(_) => failure(&AttestError::Internal("keys have no json form")),
    }
}

async fn wrong_method() -> Response<Body> {
    error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method is not known for this path")
}

/// The value of `api-version`; its values need no escapes.
fn api_version(query: Option<&str>) -> Option<String> {
    query?.split('&').find_map(|pair| pair.strip_prefix("api-version=")).map(str::to_owned)
}

fn failure(refused: &AttestError) -> Response<Body> {
    let (status, code) = match refused {
        AttestError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        AttestError::NoQuoteVerifier => (StatusCode::BAD_REQUEST, "NotSupported"),
        AttestError::Request(RequestError::ApiVersion { .. }) => {
            (StatusCode::BAD_REQUEST, "UnsupportedApiVersion")
        }
        AttestError::Request(_) => (StatusCode::BAD_REQUEST, "InvalidParameter"),
        _ => (StatusCode::BAD_REQUEST, "AttestationFailed"),
    };
    error(status, code, &chain(refused))
}

fn error(status: StatusCode, code: &str, words: &str) -> Response<Body> {
    answer(status, &json!({ "error": { "code": code, "message": words } }))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
