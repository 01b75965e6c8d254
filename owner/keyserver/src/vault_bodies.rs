//! What clients of vaults send: query strings and bodies (Azure Key Vault REST API 7.4, import, create, update and release of keys).
//!
//! A member that is not read is refused: who sent it would believe that it has an effect. Members that the API marks as read-only have none at
//! the cloud's vaults either, so clients that send back what they were given are served.

use ah_keyservice::{Family, KeyType, Rule, Shape, decode_base64};
use ah_release_api::KeyId;
use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::ApiError;

/// The exponent of every RSA key that is made here.
const PUBLIC_EXPONENT: u64 = 65537;
/// Most of a member's name that an answer repeats, characters.
const MAX_SHOWN_CHARS: usize = 32;

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
#[serde(deny_unknown_fields)]
pub(crate) struct ImportBody {
    key: Map<String, Value>,
    // The API's own name has a capital letter; the importer of the sidecar's makers writes it without.
    #[serde(alias = "Hsm")]
    hsm: Option<bool>,
    pub(crate) attributes: Option<AttributesBody>,
    pub(crate) release_policy: Option<PolicyBody>,
    tags: Option<Tags>,
}

impl ImportBody {
    /// The JSON Web Key, of which every member is one that a key of its type has.
    pub(crate) fn key(&self) -> Result<(KeyType, &Map<String, Value>), ApiError> {
        none_of(self.tags.as_ref())?;
        let text = self.key.get("kty").and_then(Value::as_str).unwrap_or_default();
        let mut kty: KeyType = text.parse().map_err(material)?;
        kty.hsm |= self.hsm.unwrap_or(false);
        for (name, _) in self.key.iter().filter(|(_, value)| !value.is_null()) {
            check_member(kty, name)?;
        }
        check_size(&self.key)?;
        Ok((kty, &self.key))
    }

    pub(crate) fn ops(&self) -> Result<Option<Vec<String>>, ApiError> {
        match self.key.get("key_ops") {
            None | Some(Value::Null) => Ok(None),
            Some(ops) => serde_json::from_value(ops.clone())
                .map(Some)
                .map_err(|_| ApiError::bad("key_ops is no list of texts")),
        }
    }
}

fn check_member(kty: KeyType, name: &str) -> Result<(), ApiError> {
    let of_type: &[&str] = match kty.family {
        Family::Oct | Family::Opaque => &["k", "key_size"],
        Family::Rsa => &["n", "e", "d", "p", "q", "dp", "dq", "qi"],
        Family::Ec => &["crv", "x", "y", "d"],
    };
    let known = ["kty", "kid", "key_ops"].iter().chain(of_type);
    if known.clone().any(|one| *one == name) {
        return Ok(());
    }
    let words = match name {
        "key_hsm" => "key_hsm is a key wrapped for a cloud's HSM, which nothing here can open: import the key itself".to_owned(),
        _ => {
            let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
            let (of, known) = (kty.name(), known.copied().collect::<Vec<_>>().join(", "));
            format!("key's member {shown:?} is none that a key of type {of} has here, expected {known}: leave it out")
        }
    };
    Err(ApiError::bad(words))
}

/// `key_size` says of the bytes what they say themselves.
fn check_size(key: &Map<String, Value>) -> Result<(), ApiError> {
    let size = key.get("key_size").filter(|size| !size.is_null());
    let bytes = key.get("k").and_then(Value::as_str).and_then(decode_base64).map(Zeroizing::new);
    let (Some(size), Some(bytes)) = (size, bytes) else { return Ok(()) };
    let bits = bytes.len().saturating_mul(8);
    match size.as_u64() == u64::try_from(bits).ok() {
        true => Ok(()),
        false => Err(ApiError::bad(format!("key_size is not the size of k, expected {bits}"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    kty: String,
    key_size: Option<u32>,
    public_exponent: Option<u64>,
    crv: Option<String>,
    pub(crate) key_ops: Option<Vec<String>>,
    pub(crate) attributes: Option<AttributesBody>,
    pub(crate) release_policy: Option<PolicyBody>,
    tags: Option<Tags>,
}

impl CreateBody {
    /// What to make; nothing that would be said in vain.
    pub(crate) fn shape(&self) -> Result<(KeyType, Shape), ApiError> {
        none_of(self.tags.as_ref())?;
        let kty: KeyType = self.kty.parse().map_err(material)?;
        if kty.family == Family::Opaque {
            return Err(material(ah_keyservice::MaterialError::Type { found: self.kty.clone() }));
        }
        let vain = |name: &str| {
            ApiError::bad(format!("a key of type {} has no {name}: leave it out", kty.name()))
        };
        if kty.family == Family::Ec && self.key_size.is_some() {
            return Err(vain("key_size, but a crv"));
        }
        if kty.family != Family::Ec && self.crv.is_some() {
            return Err(vain("crv"));
        }
        match self.public_exponent {
            Some(_) if kty.family != Family::Rsa => return Err(vain("public_exponent")),
            None | Some(PUBLIC_EXPONENT) => {}
            Some(found) => {
                let words = format!("public_exponent is {found}, expected {PUBLIC_EXPONENT}");
                return Err(ApiError::bad(words));
            }
        }
        Ok((kty, Shape { size: self.key_size, curve: self.crv.clone() }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateBody {
    pub(crate) key_ops: Option<Vec<String>>,
    pub(crate) attributes: Option<AttributesBody>,
    pub(crate) release_policy: Option<PolicyBody>,
    tags: Option<Tags>,
}

impl UpdateBody {
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        none_of(self.tags.as_ref())
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttributesBody {
    pub(crate) enabled: Option<bool>,
    pub(crate) exportable: Option<bool>,
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: Option<u64>,
    // Read-only.
    #[serde(rename = "created")]
    _created: Option<IgnoredAny>,
    #[serde(rename = "updated")]
    _updated: Option<IgnoredAny>,
    #[serde(rename = "recoverableDays")]
    _recoverable_days: Option<IgnoredAny>,
    #[serde(rename = "recoveryLevel")]
    _recovery_level: Option<IgnoredAny>,
    #[serde(rename = "hsmPlatform")]
    _hsm_platform: Option<IgnoredAny>,
}

type Tags = Map<String, Value>;

fn none_of(tags: Option<&Tags>) -> Result<(), ApiError> {
    match tags.is_none_or(Map::is_empty) {
        true => Ok(()),
        false => Err(ApiError::bad("tags are not kept by this service: leave them out")),
    }
}

pub(crate) fn material(error: ah_keyservice::MaterialError) -> ApiError {
    ah_keyservice::ServiceError::from(ah_keyservice::VaultError::from(error)).into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyBody {
    #[serde(rename = "contentType")]
    pub(crate) content_type: Option<String>,
    pub(crate) data: String,
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
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseBody {
    pub(crate) target: String,
    pub(crate) nonce: Option<String>,
    pub(crate) enc: Option<String>,
}
