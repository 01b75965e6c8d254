//! What clients of vaults send: query strings and bodies.

use ah_keyservice::Rule;
use ah_keyservice::decode_base64;
use ah_release_api::KeyId;
use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Members of the query string that we know; clients of other services may send more.
#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "api-version")]
    pub(crate) api_version: Option<String>,
    pub(crate) maxresults: Option<u32>,
    #[serde(rename = "$skiptoken")]
    pub(crate) skip: Option<String>,
}

pub(crate) type AskedQuery = Result<Query<Asked>, QueryRejection>;
pub(crate) type Body = Result<Bytes, BytesRejection>;

pub(crate) fn asked(query: AskedQuery) -> Result<Asked, ApiError> {
    let Query(asked) = query.map_err(|_| ApiError::bad("query string cannot be read"))?;
    let version = asked.api_version.as_deref().unwrap_or_default();
    let known = (1..=32).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    match known {
        true => Ok(asked),
        false => Err(ApiError::bad(
            "api-version is missing or malformed: expected for example api-version=7.4",
        )),
    }
}

/// Vaults' names: letters, digits and dashes; a name of ours without a slash is read as well, for keys of our own tools.
pub(crate) fn key_id(name: &str) -> Result<KeyId, ApiError> {
    name.parse().map_err(|error: ah_release_api::IdError| ApiError::bad(error.to_string()))
}

#[derive(Deserialize)]
pub(crate) struct ImportBody {
    pub(crate) key: Map<String, Value>,
    #[serde(default)]
    pub(crate) hsm: Option<bool>,
    #[serde(default)]
    pub(crate) attributes: Option<AttributesBody>,
    #[serde(default)]
    pub(crate) release_policy: Option<PolicyBody>,
}

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    pub(crate) kty: String,
    #[serde(default)]
    pub(crate) key_size: Option<u32>,
    #[serde(default)]
    pub(crate) crv: Option<String>,
    #[serde(default)]
    pub(crate) key_ops: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) attributes: Option<AttributesBody>,
    #[serde(default)]
    pub(crate) release_policy: Option<PolicyBody>,
}

#[derive(Deserialize, Default)]
pub(crate) struct UpdateBody {
    #[serde(default)]
    pub(crate) key_ops: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) attributes: Option<AttributesBody>,
    #[serde(default)]
    pub(crate) release_policy: Option<PolicyBody>,
}

#[derive(Deserialize, Default)]
pub(crate) struct AttributesBody {
    pub(crate) enabled: Option<bool>,
    pub(crate) exportable: Option<bool>,
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct PolicyBody {
    #[serde(rename = "contentType")]
    pub(crate) content_type: Option<String>,
    pub(crate) data: String,
    #[serde(default)]
    pub(crate) immutable: Option<bool>,
}

impl PolicyBody {
    pub(crate) fn rule(&self) -> Result<Rule, ApiError> {
        let json =
            self.content_type.as_deref().is_none_or(|kind| kind.starts_with("application/json"));
        if !json {
            return Err(ApiError::bad(
                "release policy has another content type than application/json",
            ));
        }
        let text = decode_base64(&self.data).and_then(|bytes| String::from_utf8(bytes).ok());
        let text =
            text.ok_or_else(|| ApiError::bad("release policy's data is not base64url of a text"))?;
        Ok(Rule::parse(&text, self.immutable.unwrap_or(false))
            .map_err(ah_keyservice::ServiceError::from)?)
    }
}

#[derive(Deserialize)]
pub(crate) struct ReleaseBody {
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) nonce: Option<String>,
    #[serde(default)]
    pub(crate) enc: Option<String>,
}
