//! Routes of our own, version 1: challenge and release for guests, the log for auditors.

use ah_release_api::{RefusedBy, Response as Message};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, extract::rejection::BytesRejection};
use serde::Deserialize;
use serde_json::{Value, json};

use ah_keyservice::MAX_ENTRIES;

use crate::app::Shared;
use crate::error::ApiError;

pub(crate) async fn identity(State(app): Shared) -> Json<Value> {
    Json(json!({ "public_key": app.service.identity().to_string() }))
}

/// The body of [`release`] holds its nonce.
pub(crate) async fn challenge(
    State(app): Shared,
) -> Result<Json<ah_release_api::Challenge>, ApiError> {
    Ok(Json(app.service.challenge()?))
}

/// A message of `ah_release_api`, as it would go over a socket; the answer is one, too. The status is 403 for a refusal.
pub(crate) async fn release(
    State(app): Shared,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let answer = app.service.handle(&bytes(body)?).await;
    let status = match Message::from_json(&answer) {
        Ok(Message::Refused(refusal)) => match refusal.by {
            RefusedBy::Request => StatusCode::BAD_REQUEST,
            RefusedBy::Service => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::FORBIDDEN,
        },
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Ok((status, [(header::CONTENT_TYPE, "application/json")], answer).into_response())
}

pub(crate) async fn head(State(app): Shared) -> Result<Response, ApiError> {
    Ok(Json(app.service.head().await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    #[serde(default)]
    start: u64,
    #[serde(default = "all")]
    limit: u64,
}

fn all() -> u64 {
    MAX_ENTRIES
}

pub(crate) async fn entries(
    State(app): Shared,
    Query(range): Query<Range>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "entries": app.service.entries(range.start, range.limit).await? })))
}

pub(crate) async fn inclusion(
    State(app): Shared,
    Path(seq): Path<u64>,
) -> Result<Response, ApiError> {
    Ok(Json(app.service.prove_inclusion(seq).await?).into_response())
}

pub(crate) async fn consistency(
    State(app): Shared,
    Path(size): Path<u64>,
) -> Result<Response, ApiError> {
    Ok(Json(app.service.prove_consistency(size).await?).into_response())
}

pub(crate) async fn backup(State(app): Shared) -> Result<Response, ApiError> {
    let mut bytes = Vec::new();
    app.service.backup(&mut bytes).await.map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], bytes).into_response())
}

/// The body, or why there is none.
pub(crate) fn bytes(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| {
        let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            "PayloadTooLarge"
        } else {
            "BadParameter"
        };
        ApiError::new(
            rejection.status(),
            code,
            format!("request body: {}", rejection.body_text().to_lowercase()),
        )
    })
}
