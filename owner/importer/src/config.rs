//! `importkeyconfig.json`.
//!
//! ```json
//! {"key": {"kid": "NAME", "kty": "RSA-HSM", "key_ops": ["encrypt"],
//!          "authority": {"endpoint": "HOST"},
//!          "akv": {"endpoint": "HOST[:PORT]", "api_version": "api-version=7.4", "bearer_token": "…"}},
//!  "key_derivation": {"salt": "HEX", "label": "…"},
//!  "claims": [[{"claim": "x-ms-sevsnpvm-hostdata", "equals": "…"}]],
//!  "identity": {"client_id": "…"}}
//! ```
//!
//! Each inner list of `claims` is one way to get the key, in which every claim has to be met. One list of claims alone, as the importer's
//! own page shows it, is read as a list with that list in it.

use ah_keyservice::{Family, KeyType};
use ah_release_api::policy::PolicyError;
use ah_release_api::{KeyId, ReleasePolicy};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// What the importer calls a symmetric key when its file says no type.
const USUAL_TYPE: &str = "oct-HSM";
/// The query of the vault's API when the file has none.
const USUAL_QUERY: &str = "api-version=7.4";
/// What the importer derives keys for when its file has no label.
const USUAL_LABEL: &str = "Symmetric Encryption Key";

/// Why a file is no configuration of an import.
#[derive(Debug, thiserror::Error)]
pub enum ImportConfigError {
    /// Not JSON, or a member of another type.
    #[error("import configuration cannot be read")]
    Json(#[source] serde_json::Error),
    /// Members that nobody would look at.
    #[error(
        "import configuration has unknown members: {}\nhint: check their spelling; docs/keyservice.md lists what there is",
        paths.join(", ")
    )]
    Unknown {
        /// Their paths.
        paths: Vec<String>,
    },
    /// A value that cannot be used.
    #[error("import configuration: {path} is {found}, expected {expected}")]
    Value {
        /// Where.
        path: String,
        /// What was found; never a secret.
        found: String,
        /// What can be there.
        expected: &'static str,
    },
    /// Claims that make no release policy.
    #[error("import configuration: claims make no release policy")]
    Policy(#[source] PolicyError),
}

/// How a further key is derived from an RSA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// Public salt; `None`: one is to be made.
    pub salt: Option<Vec<u8>>,
    /// What the derived key is for.
    pub label: String,
}

/// What is to be imported where, and who may have it.
pub struct ImportConfig {
    /// The key's name.
    pub name: KeyId,
    /// Its type.
    pub kty: KeyType,
    /// What it is for; empty: what such a key is usually for.
    pub ops: Vec<String>,
    /// `host[:port]` of the vault.
    pub vault: String,
    /// Query string of the vault's API, `api-version=…`.
    pub query: String,
    /// Token for the vault, if the file has one.
    pub bearer_token: Option<Zeroizing<String>>,
    /// Which of the machine's identities is meant, if the file says so.
    pub client_id: Option<String>,
    /// How a further key is derived.
    pub derivation: Derivation,
    /// Under which claims the key is released.
    pub policy: ReleasePolicy,
}

#[derive(Deserialize)]
struct Wire {
    key: KeyWire,
    #[serde(default)]
    key_derivation: DerivationWire,
    claims: Vec<Value>,
    #[serde(default)]
    identity: IdentityWire,
}

#[derive(Deserialize)]
struct KeyWire {
    kid: String,
    #[serde(default)]
    kty: String,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    authority: AuthorityWire,
    akv: VaultWire,
}

#[derive(Deserialize)]
struct AuthorityWire {
    endpoint: String,
}

#[derive(Deserialize)]
struct VaultWire {
    endpoint: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    bearer_token: String,
}

#[derive(Deserialize, Default)]
struct DerivationWire {
    #[serde(default)]
    salt: String,
    #[serde(default)]
    label: String,
}

#[derive(Deserialize, Default)]
struct IdentityWire {
    #[serde(default)]
    client_id: String,
}

impl ImportConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`ImportConfigError`] with the path of the member that is wrong.
    pub fn parse(text: &str) -> Result<Self, ImportConfigError> {
        let wire = read(text)?;
        let VaultWire { endpoint, api_version, bearer_token } = wire.key.akv;
        let bearer_token = Zeroizing::new(bearer_token);
        let authority = host("key.authority.endpoint", &wire.key.authority.endpoint)?;
        Ok(Self {
            name: wire.key.kid.parse().map_err(|_| {
                value("key.kid", &wire.key.kid, "a name of letters, digits and dashes")
            })?,
            kty: key_type(&wire.key.kty)?,
            ops: wire.key.key_ops.unwrap_or_default(),
            vault: host("key.akv.endpoint", &endpoint)?,
            query: query(&api_version)?,
            bearer_token: (!bearer_token.is_empty()).then_some(bearer_token),
            client_id: (!wire.identity.client_id.is_empty()).then_some(wire.identity.client_id),
            derivation: derivation(wire.key_derivation)?,
            policy: policy(&authority, wire.claims)?,
        })
    }

    /// Whether the vault is a managed HSM of the cloud, whose tokens are for another resource than those of its vaults.
    pub fn is_managed_hsm(&self) -> bool {
        self.vault.contains("managedhsm")
    }
}

fn read(text: &str) -> Result<Wire, ImportConfigError> {
    let mut paths = Vec::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let wire: Wire = serde_ignored::deserialize(&mut json, |path| paths.push(path.to_string()))
        .map_err(ImportConfigError::Json)?;
    json.end().map_err(ImportConfigError::Json)?;
    match paths.is_empty() {
        true => Ok(wire),
        false => Err(ImportConfigError::Unknown { paths }),
    }
}

fn value(path: impl Into<String>, found: &str, expected: &'static str) -> ImportConfigError {
    let found: String = found.chars().take(80).collect();
    ImportConfigError::Value { path: path.into(), found: format!("{found:?}"), expected }
}

fn key_type(name: &str) -> Result<KeyType, ImportConfigError> {
    let name = if name.is_empty() { USUAL_TYPE } else { name };
    let kty: Option<KeyType> = name.parse().ok();
    kty.filter(|kty| kty.family != Family::Opaque).ok_or_else(|| {
        value("key.kty", name, "oct-HSM, RSA-HSM, EC-HSM, or one of them without -HSM")
    })
}

/// `host[:port]`, with the scheme that it is used with or without.
fn host(path: &str, text: &str) -> Result<String, ImportConfigError> {
    let host = text.strip_prefix("https://").unwrap_or(text);
    let host = host.strip_suffix('/').unwrap_or(host);
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte));
    match !host.is_empty() && plain {
        true => Ok(host.to_owned()),
        false => Err(value(path, text, "host or host:port")),
    }
}

/// The file has the query as it stands in the address.
fn query(text: &str) -> Result<String, ImportConfigError> {
    let text = if text.is_empty() { USUAL_QUERY } else { text };
    let version = text.strip_prefix("api-version=").unwrap_or_default();
    let plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    match !version.is_empty() && plain {
        true => Ok(text.to_owned()),
        false => Err(value("key.akv.api_version", text, "api-version=VERSION")),
    }
}

fn derivation(wire: DerivationWire) -> Result<Derivation, ImportConfigError> {
    let DerivationWire { salt, label } = wire;
    let bytes = hex::decode(&salt)
        .map_err(|_| value("key_derivation.salt", &salt, "an even number of hex digits"))?;
    let label = if label.is_empty() { USUAL_LABEL.to_owned() } else { label };
    Ok(Derivation { salt: (!bytes.is_empty()).then_some(bytes), label })
}

/// One way to the key for each list of claims, all by the same authority.
fn policy(authority: &str, claims: Vec<Value>) -> Result<ReleasePolicy, ImportConfigError> {
    let flat = claims.first().is_some_and(Value::is_object);
    let lists = if flat { vec![Value::Array(claims)] } else { claims };
    let mut ways = Vec::new();
    for (index, list) in lists.into_iter().enumerate() {
        let at = if flat { "claims".to_owned() } else { format!("claims[{index}]") };
        let all = conditions(&at, list)?;
        ways.push(json!({ "authority": format!("https://{authority}"), "allOf": all }));
    }
    let text = json!({ "version": "1.0.0", "anyOf": ways }).to_string();
    ReleasePolicy::parse(&text).map_err(ImportConfigError::Policy)
}

fn conditions(at: &str, list: Value) -> Result<Vec<Value>, ImportConfigError> {
    let Value::Array(list) = list else {
        return Err(value(at, &list.to_string(), "a list of claims"));
    };
    list.into_iter()
        .enumerate()
        .map(|(index, one)| condition(&format!("{at}[{index}]"), one))
        .collect()
}

fn condition(at: &str, one: Value) -> Result<Value, ImportConfigError> {
    let Value::Object(members) = one else {
        return Err(value(at, &one.to_string(), "{\"claim\", \"equals\"}"));
    };
    let known = ["claim", "equals"];
    let unknown = |members: &Map<String, Value>| -> Vec<String> {
        let names = members.keys().filter(|name| !known.contains(&name.as_str()));
        names.map(|name| format!("{at}.{name}")).collect()
    };
    let paths = unknown(&members);
    if !paths.is_empty() {
        return Err(ImportConfigError::Unknown { paths });
    }
    match members.get("claim") {
        Some(Value::String(_)) => {}
        other => {
            let found = other.map(Value::to_string).unwrap_or_default();
            return Err(value(format!("{at}.claim"), &found, "a claim's name"));
        }
    }
    match members.get("equals") {
        Some(Value::String(_) | Value::Bool(_) | Value::Number(_)) => Ok(Value::Object(members)),
        other => {
            let found = other.map(Value::to_string).unwrap_or_default();
            Err(value(format!("{at}.equals"), &found, "a text, a number, true or false"))
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
