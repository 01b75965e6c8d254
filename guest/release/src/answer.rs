//! What a container is told, as HTTP.

use std::error::Error;

use ah_evidence::Evidence;
use ah_release_api::{KeyKind, RefusedBy, UnmetClaim};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::client::{ReleaseError, ReleasedKey};
use crate::transport::ExchangeError;

pub(crate) type Answer = Response<Full<Bytes>>;

/// `{"key": base64, "kind": "oct"}`; the bytes are wiped once they are sent.
pub(crate) fn key(key: &ReleasedKey) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        key: &'a str,
        kind: KeyKind,
    }
    let text = Zeroizing::new(STANDARD.encode(key.secret.as_bytes()));
    // Room for all of it: a buffer that grows would leave unwiped copies behind.
    let room = text.len().saturating_add(64);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    match serde_json::to_writer(&mut *body, &Body { key: &text, kind: key.kind }) {
        Ok(()) => answer(StatusCode::OK, Bytes::from_owner(body)),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "key has no json form"),
    }
}

/// The evidence document.
pub(crate) fn evidence(evidence: &Evidence) -> Answer {
    match evidence.to_json() {
        Ok(text) => answer(StatusCode::OK, Bytes::from(text)),
        Err(cause) => error(StatusCode::BAD_GATEWAY, &chain(&cause)),
    }
}

/// `{"error": words}`.
pub(crate) fn error(status: StatusCode, words: &str) -> Answer {
    refusal(status, words, None, &[])
}

/// The error of another method than the path knows.
pub(crate) fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method is not known for this path");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Why there is no key or evidence: the words of whoever said no.
pub(crate) fn failure(error: &ReleaseError) -> Answer {
    let status = match error {
        ReleaseError::Refused(refusal) => match refusal.by {
            RefusedBy::KeyStore => StatusCode::NOT_FOUND,
            RefusedBy::Service => StatusCode::BAD_GATEWAY,
            _ => StatusCode::FORBIDDEN,
        },
        ReleaseError::Exchange(ExchangeError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
        ReleaseError::Reserved => StatusCode::BAD_REQUEST,
        ReleaseError::Tee(_) | ReleaseError::Report(_) | ReleaseError::Random(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_GATEWAY,
    };
    match error {
        ReleaseError::Refused(found) => {
            refusal(status, &found.to_string(), Some(found.by), &found.unmet)
        }
        other => refusal(status, &chain(other), None, &[]),
    }
}

fn refusal(status: StatusCode, words: &str, by: Option<RefusedBy>, unmet: &[UnmetClaim]) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused_by: Option<RefusedBy>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        unmet: &'a [UnmetClaim],
    }
    let body = serde_json::to_vec(&Body { error: words, refused_by: by, unmet });
    answer(status, Bytes::from(body.unwrap_or_default()))
}

fn answer(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
