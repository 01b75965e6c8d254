//! The forms in which people have a request as JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::explain::ExplainError;

/// `{"kind": …, "request": …}`, perhaps with what a case says beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// What the case is about.
    #[serde(default)]
    pub(crate) description: String,
    /// What a case expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allowed: Option<bool>,
    /// Rule or method name; a request may say it instead, as its `type`.
    #[serde(default)]
    pub(crate) kind: String,
    /// Policy input or protobuf JSON, missing fields filled with defaults.
    pub(crate) request: Value,
    /// The container that the request's `container_id` stands for; without it the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<String>,
}

impl Document {
    /// Reads a document; with `kind` it may be the request alone.
    pub(crate) fn parse(text: &str, kind: Option<&str>) -> Result<Self, ExplainError> {
        let value: Value = serde_json::from_str(text).map_err(unfit)?;
        // A list would be read as a message's fields in their order.
        if !value.is_object() {
            return Err(ExplainError::Document { detail: "it is no object".to_owned() });
        }
        let whole = value.get("request").is_some();
        match kind {
            Some(kind) if !whole => Ok(Self {
                description: String::new(),
                allowed: None,
                kind: kind.to_owned(),
                request: value,
                container: None,
            }),
            given => {
                let document = Self::from_value(value)?;
                match given.filter(|given| *given != document.kind) {
                    Some(given) => {
                        let detail =
                            format!("kind {:?} in it, {given:?} was asked for", document.kind);
                        Err(ExplainError::Document { detail })
                    }
                    None => Ok(document),
                }
            }
        }
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, ExplainError> {
        let mut document: Self = serde_json::from_value(value).map_err(unfit)?;
        if !document.request.is_object() {
            let detail = "its request is no object".to_owned();
            return Err(ExplainError::Document { detail });
        }
        if document.kind.is_empty() {
            let own = document.request.as_object_mut().and_then(|request| request.remove("type"));
            document.kind = match own {
                Some(Value::String(kind)) => kind,
                _ => {
                    let detail = "no kind of request".to_owned();
                    return Err(ExplainError::Document { detail });
                }
            };
        }
        Ok(document)
    }
}

fn unfit(error: serde_json::Error) -> ExplainError {
    ExplainError::Document { detail: error.to_string() }
}
