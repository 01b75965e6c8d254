//! What a caller is told when it does not get what it asked for, in the shape that vaults give it.

use ah_keyservice::{ServiceError, StoreError, TokenRefusal, VaultError};
use ah_release_api::RefusedBy;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer that is a no: `{"error":{"code","message"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// One word for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// `WWW-Authenticate` or `Retry-After`.
    header: Option<(header::HeaderName, String)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// No caller, or one that is not who it says; the challenge tells clients of vaults where tokens come from.
    pub(crate) fn unauthorized(message: impl Into<String>, url: &str) -> Self {
        let challenge = format!("Bearer authorization=\"{url}\", resource=\"{url}\"");
        let error = Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        Self { header: Some((header::WWW_AUTHENTICATE, challenge)), ..error }
    }

    pub(crate) fn busy() -> Self {
        let message = "too many requests from this address: wait a second";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Throttled", message);
        Self { header: Some((header::RETRY_AFTER, "1".to_owned())), ..error }
    }

    /// What went wrong is the operator's business.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        let causes: Vec<_> = std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        tracing::error!(causes = causes.join(": "), "request failed");
        let message = "the key service failed: its operator finds the cause in its output";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match &error {
            ServiceError::NoEntry { .. } => {
                Self::new(StatusCode::NOT_FOUND, "NotFound", error.to_string())
            }
            ServiceError::Vault(vault) => match vault {
                VaultError::NotFound(_) => {
                    Self::new(StatusCode::NOT_FOUND, "KeyNotFound", error.to_string())
                }
                VaultError::Exists(_) => {
                    Self::new(StatusCode::CONFLICT, "Conflict", error.to_string())
                }
                // Word for word what clients of vaults know.
                VaultError::NoPolicy => Self::bad("Exportable keys must have release policy"),
                VaultError::Immutable(_) => Self::forbidden(error.to_string()),
                VaultError::Policy(_) | VaultError::Operation { .. } | VaultError::Material(_) => {
                    Self::bad(error.to_string())
                }
                _ => Self::internal(&error),
            },
            ServiceError::Store(StoreError::Closed) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<TokenRefusal> for ApiError {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal.by {
            RefusedBy::Request => Self::bad(refusal.reason),
            _ if refusal.missing => Self::new(StatusCode::NOT_FOUND, "KeyNotFound", refusal.reason),
            RefusedBy::Service => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", refusal.reason)
            }
            _ => Self::forbidden(refusal.reason),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
