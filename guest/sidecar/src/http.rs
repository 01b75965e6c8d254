//! The routes for applications, as the sidecar of AKS and ACI has them.
//!
//! | route | request | answer |
//! |---|---|---|
//! | `GET /status` | | 200 `{"message":"Status OK"}` |
//! | `POST /attest/raw` | `{"runtime_data"}` | 200 `{"report"}`, hex |
//! | `POST /attest/combined` | `{"runtime_data"}` | 200 `{"endorsed_tcb","endorsements","evidence","uvm_endorsements"}` |
//! | `POST /attest/maa` | `{"maa_endpoint","runtime_data"}` | 200 `{"token"}` |
//! | `POST /key/release` | `{"maa_endpoint","akv_endpoint","kid","access_token"?}` | 200 `{"key"}`, the text of a JWK |
//!
//! Errors are one document `{"error"}`: 400 request, 403 attestation service, vault, identity or certificates (500 for certificates in
//! `/attest/combined`), 413 too long, 500 this program, 503 no report. Anything else is 404 `404 page not found`.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::base64;
use crate::error::SidecarError;
use crate::service::{ReleaseRequest, Service};

/// Longest request body, bytes: 64 KiB of runtime data in base64, and room around it.
const MAX_BODY_BYTES: usize = 128 * 1024;
/// Longest runtime data, bytes: what the guest's socket takes.
const MAX_RUNTIME_DATA_BYTES: usize = 64 * 1024;

type Shared = State<Arc<Service>>;
type RawBody = Result<Bytes, BytesRejection>;

/// The routes.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/attest/raw", post(raw))
        .route("/attest/combined", post(combined))
        .route("/attest/maa", post(maa))
        .route("/key/release", post(release))
        .method_not_allowed_fallback(not_found)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(service)
}

/// Members that are not known are left alone, as by the known sidecar. A member that is missing or empty is refused by its name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AttestBody {
    maa_endpoint: String,
    runtime_data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReleaseBody {
    maa_endpoint: String,
    akv_endpoint: String,
    kid: String,
    access_token: Option<String>,
}

async fn status() -> Response<Body> {
    answer(StatusCode::OK, &json!({"message": "Status OK"}))
}

async fn raw(State(service): Shared, body: RawBody) -> Response<Body> {
    finish(async {
        let body: AttestBody = read(body)?;
        let report = service.raw(&runtime_data(&body)?).await?;
        Ok(json!({"report": hex::encode(report)}))
    })
    .await
}

async fn combined(State(service): Shared, body: RawBody) -> Response<Body> {
    finish(async {
        let body: AttestBody = read(body)?;
        let data = runtime_data(&body)?;
        let combined = service.combined(&data).await.map_err(|error| match error {
            error @ SidecarError::Certificates(_) => {
                Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, words: error.to_string() }
            }
            error => error.into(),
        })?;
        serde_json::to_value(combined)
            .map_err(|_| SidecarError::Internal("evidence has no json form").into())
    })
    .await
}

async fn maa(State(service): Shared, body: RawBody) -> Response<Body> {
    finish(async {
        let body: AttestBody = read(body)?;
        required("maa_endpoint", &body.maa_endpoint)?;
        let token = service.token(&body.maa_endpoint, &runtime_data(&body)?).await?;
        Ok(json!({"token": token}))
    })
    .await
}

async fn release(State(service): Shared, body: RawBody) -> Response<Body> {
    finish(async {
        let body: ReleaseBody = read(body)?;
        required("maa_endpoint", &body.maa_endpoint)?;
        required("akv_endpoint", &body.akv_endpoint)?;
        required("kid", &body.kid)?;
        let access_token = body.access_token.map(Zeroizing::new);
        let request = ReleaseRequest {
            maa_endpoint: body.maa_endpoint,
            akv_endpoint: body.akv_endpoint,
            kid: body.kid,
            access_token: access_token.filter(|token| !token.is_empty()),
        };
        let key = service.release(request).await?;
        Ok(json!({"key": *key}))
    })
    .await
}

async fn not_found() -> Response<Body> {
    let mut answer = Response::new(Body::from("404 page not found"));
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Why a request is not answered, with its status.
struct Refusal {
    status: StatusCode,
    words: String,
}

impl From<SidecarError> for Refusal {
    fn from(error: SidecarError) -> Self {
        let status = match error {
            SidecarError::Request(_) => StatusCode::BAD_REQUEST,
            SidecarError::Report(_) => StatusCode::SERVICE_UNAVAILABLE,
            SidecarError::Certificates(_)
            | SidecarError::Maa { .. }
            | SidecarError::Identity(_)
            | SidecarError::Vault { .. } => StatusCode::FORBIDDEN,
            SidecarError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, words: error.to_string() }
    }
}

fn read<T: DeserializeOwned>(body: RawBody) -> Result<T, Refusal> {
    let bytes =
        body.map_err(|error| Refusal { status: error.status(), words: error.body_text() })?;
    let wrong = |words: &dyn std::fmt::Display| {
        SidecarError::Request(format!("body is not JSON of the expected shape: {words}")).into()
    };
    // The library would take a list for the members in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong(&"expected an object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}

fn required(name: &str, value: &str) -> Result<(), SidecarError> {
    match value.is_empty() {
        true => Err(SidecarError::Request(format!("{name} is missing"))),
        false => Ok(()),
    }
}

fn runtime_data(body: &AttestBody) -> Result<Vec<u8>, SidecarError> {
    required("runtime_data", &body.runtime_data)?;
    let data = base64::standard(&body.runtime_data).map_err(|error| {
        SidecarError::Request(format!("runtime_data is not standard base64: {error}"))
    })?;
    match data.len() {
        ..=MAX_RUNTIME_DATA_BYTES => Ok(data),
        found => Err(SidecarError::Request(format!(
            "runtime_data has {found} bytes, expected at most {MAX_RUNTIME_DATA_BYTES}"
        ))),
    }
}

/// One document, whatever happened.
async fn finish(work: impl Future<Output = Result<Value, Refusal>>) -> Response<Body> {
    match work.await {
        Ok(body) => answer(StatusCode::OK, &body),
        Err(Refusal { status, words }) => {
            tracing::warn!("{status}: {words}");
            answer(status, &json!({"error": words}))
        }
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
