//! The vault as the sidecar sees it: a token in, a wrapped key in a signed answer out (Azure Key Vault REST, `Release Key`).

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::base64;
use crate::error::{SidecarError, chain, printable};
use crate::maa::endpoint_url;
use crate::reports::read_limited;
use crate::tls::Tls;
use crate::wrap::{WrapAlgorithm, WrappingKey};
use crate::{jwk, jws};

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
const API_VERSION: &str = "7.4";

/// A client of vaults.
pub struct VaultClient {
    client: reqwest::Client,
    tls: Tls,
}

#[derive(Deserialize)]
struct Answer {
    value: String,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    request: RequestPart,
    response: ResponsePart,
}

#[derive(Default, Deserialize)]
struct RequestPart {
    enc: Option<String>,
}

#[derive(Deserialize)]
struct ResponsePart {
    key: KeyPart,
}

#[derive(Deserialize)]
struct KeyPart {
    key: KeyObject,
}

#[derive(Deserialize)]
struct KeyObject {
    kty: String,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    key_hsm: String,
}

#[derive(Deserialize)]
struct KeyHsm {
    ciphertext: String,
}

/// A key as it came out of the vault.
pub(crate) struct ReleasedKey {
    kty: String,
    key_ops: Vec<String>,
    material: Zeroizing<Vec<u8>>,
}

impl ReleasedKey {
    /// The text of a JWK.
    pub(crate) fn jwk(&self) -> Result<Zeroizing<String>, String> {
        jwk::text(&self.kty, &self.key_ops, &self.material).map(Zeroizing::new)
    }

    /// The private key, PKCS#8, of an RSA key.
    pub(crate) fn rsa_pkcs8(&self) -> Option<&[u8]> {
        matches!(self.kty.as_str(), "RSA" | "RSA-HSM").then_some(&*self.material)
    }
}

impl VaultClient {
    /// A client that believes answers by `tls`.
    pub fn new(client: reqwest::Client, tls: Tls) -> Self {
        Self { client, tls }
    }

    /// The key `kid` of the vault at `endpoint`, released for `maa_token` to `key`.
    ///
    /// # Errors
    /// [`SidecarError::Request`] for an endpoint or key id that is none, [`SidecarError::Vault`].
    pub(crate) async fn release(
        &self,
        endpoint: &str,
        kid: &str,
        maa_token: &str,
        access_token: &str,
        key: &WrappingKey,
    ) -> Result<ReleasedKey, SidecarError> {
        check_kid(kid)?;
        let url = endpoint_url(endpoint, &format!("keys/{kid}/release?api-version={API_VERSION}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let failed = |words: String| SidecarError::Vault { endpoint: endpoint.to_owned(), words };
        let answer = self
            .client
            .post(url)
            .bearer_auth(access_token)
            .header("Content-Type", "application/json")
            .body(json!({"target": maa_token}).to_string())
            .send()
            .await
            .map_err(|error| failed(chain(&error)))?;
        let status = answer.status();
        let bytes = read_limited(answer, MAX_ANSWER_BYTES).await.map_err(failed)?;
        if !status.is_success() {
            let words = printable(&String::from_utf8_lossy(&bytes), 700);
            return Err(failed(format!("answers {status}: {words}")));
        }
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("answer is not a released key: {error}")))?;
        let payload = jws::open(&answer.value, &host, &self.tls).map_err(failed)?;
        unwrap(&payload, key).map_err(failed)
    }
}

fn unwrap(payload: &[u8], key: &WrappingKey) -> Result<ReleasedKey, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("released key is not as expected: {error}");
    let payload: Payload = serde_json::from_slice(payload).map_err(|error| wrong(&error))?;
    let KeyObject { kty, key_ops, key_hsm } = payload.response.key.key;
    let hsm = base64::url(&key_hsm).map_err(|error| wrong(&error))?;
    let hsm: KeyHsm = serde_json::from_slice(&hsm).map_err(|error| wrong(&error))?;
    let ciphertext = base64::url(&hsm.ciphertext).map_err(|error| wrong(&error))?;
    let enc = payload.request.enc;
    let algorithm = WrapAlgorithm::named(enc.as_deref()).ok_or_else(|| {
        let found = printable(enc.as_deref().unwrap_or_default(), 40);
        format!("released key is wrapped by {found:?}, which is not known")
    })?;
    let material = key.unwrap(&ciphertext, algorithm)?;
    Ok(ReleasedKey { kty, key_ops: key_ops.unwrap_or_default(), material })
}

/// `name` or `name/version`; it becomes part of an address as it is.
fn check_kid(kid: &str) -> Result<(), SidecarError> {
    let segment = |segment: &str| {
        segment.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match kid.len() <= 256 && kid.split('/').count() <= 2 && kid.split('/').all(segment) {
        true => Ok(()),
        false => {
            let found = printable(kid, 100);
            let words = format!("kid is {found:?}, expected a key's name or name/version");
            Err(SidecarError::Request(words))
        }
    }
}
