//! Tokens of others: JSON Web Tokens (RFC 7519) verified under the keys of issuers that are trusted by name.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Longest token, bytes.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::from_secs(60);

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// Who says it.
    pub issuer: String,
    /// What.
    pub claims: Map<String, Value>,
}

/// Says whether a token is to be believed.
pub trait TokenVerifier: Send + Sync {
    /// Verifies signature, issuer and times.
    ///
    /// # Errors
    /// [`TokenError`].
    fn verify(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, TokenError>;
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of JSON and signature.
    #[error("token is not a signed JSON web token")]
    Malformed,
    /// Its header wants something that is not understood here, and must be then (RFC 7515 section 4.1.11).
    #[error("token's header has {0:?}, expected a plain signed token")]
    Header(&'static str),
    /// Nobody trusts its issuer.
    #[error("token's issuer {found:?} is not trusted")]
    Issuer {
        /// The issuer found; empty when none is named.
        found: String,
    },
    /// The issuer has no such key.
    #[error("token names key {found:?}, which its issuer does not have")]
    Key {
        /// The key id found.
        found: String,
    },
    /// Signed by another algorithm than the key is for, or not at all.
    #[error("token's algorithm is {found}, expected {expected}")]
    Algorithm {
        /// The algorithm found.
        found: String,
        /// That of the key.
        expected: String,
    },
    /// The signature does not verify.
    #[error("token's signature does not verify")]
    Signature,
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// Its time has not come.
    #[error("token is not valid yet")]
    NotYet,
    /// For somebody else.
    #[error("token's audience is not this service")]
    Audience,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// Not a JSON Web Key Set.
    #[error("key set is not JSON of RFC 7517 section 5")]
    Json(#[source] serde_json::Error),
    /// No key of it can be used.
    #[error("key set has no RSA or P-256 signing key with a key id")]
    Empty,
}

/// The signing keys of one issuer.
pub struct KeySet(Vec<SigningKey>);

struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct WireSet {
    keys: Vec<WireKey>,
}

#[derive(Deserialize)]
struct WireKey {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    x5c: Option<Vec<String>>,
}

impl KeySet {
    /// Reads a key set; keys for other uses and of other kinds are passed over, as RFC 7517 section 5 wants it.
    ///
    /// # Errors
    /// [`KeySetError`] when no key is left.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: WireSet = serde_json::from_slice(json).map_err(KeySetError::Json)?;
        let keys: Vec<_> = set.keys.iter().filter_map(SigningKey::read).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }
}

impl SigningKey {
    fn read(wire: &WireKey) -> Option<Self> {
        let kid = wire.kid.clone()?;
        if wire.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let (algorithm, name, key) = match wire.kty.as_str() {
            "RSA" => (Algorithm::RS256, "RS256", rsa_key(wire)?),
            "EC" => (Algorithm::ES256, "ES256", ec_key(wire)?),
            _ => return None,
        };
        wire.alg.as_deref().is_none_or(|alg| alg == name).then_some(Self { kid, algorithm, key })
    }
}

fn rsa_key(wire: &WireKey) -> Option<DecodingKey> {
    match (&wire.n, &wire.e) {
        (Some(n), Some(e)) => DecodingKey::from_rsa_components(n, e).ok(),
        _ => Some(DecodingKey::from_rsa_der(&certified_key(wire)?)),
    }
}

fn ec_key(wire: &WireKey) -> Option<DecodingKey> {
    match (&wire.crv, &wire.x, &wire.y) {
        (Some(crv), Some(x), Some(y)) if crv == "P-256" => {
            DecodingKey::from_ec_components(x, y).ok()
        }
        (None, None, None) => Some(DecodingKey::from_ec_der(&certified_key(wire)?)),
        _ => None,
    }
}

/// The key of the first certificate: attestation services give no other form of it.
fn certified_key(wire: &WireKey) -> Option<Vec<u8>> {
    let der = base64::engine::general_purpose::STANDARD.decode(wire.x5c.as_ref()?.first()?).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let info = &certificate.tbs_certificate.subject_public_key_info;
    // The bits are PKCS#1 for RSA (RFC 3279 section 2.3.1) and the point for EC (section 2.3.5).
    Some(info.subject_public_key.raw_bytes().to_vec())
}

/// An issuer's keys, which can be exchanged while tokens are verified.
#[derive(Clone)]
pub struct SharedKeys(Arc<RwLock<Arc<KeySet>>>);

impl SharedKeys {
    /// These, until others take their place.
    pub fn new(keys: KeySet) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(keys))))
    }

    /// Others from now on.
    pub fn replace(&self, keys: KeySet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    fn current(&self) -> Arc<KeySet> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An issuer whose tokens are believed.
pub struct TrustedIssuer {
    /// `iss` of its tokens; a slash at the end counts for nothing.
    pub issuer: String,
    /// `aud` that its tokens must have; `None` where tokens are not made for one reader, as those of attestation services.
    pub audience: Option<String>,
    /// Its keys.
    pub keys: SharedKeys,
}

/// Believes the tokens of these issuers.
#[derive(Default)]
pub struct TrustedIssuers(Vec<TrustedIssuer>);

impl TrustedIssuers {
    /// These and no others.
    pub fn new(issuers: Vec<TrustedIssuer>) -> Self {
        Self(issuers)
    }
}

impl TokenVerifier for TrustedIssuers {
    fn verify(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        check_header(token)?;
        // Read before it is verified, to know under whose keys it has to verify.
        let unverified: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| TokenError::Malformed)?;
        let named = unverified.get("iss").and_then(Value::as_str).unwrap_or_default();
        let issuer = self.0.iter().find(|issuer| same_issuer(&issuer.issuer, named));
        let issuer = issuer.ok_or_else(|| TokenError::Issuer { found: cut(named) })?;
        let kid = header.kid.unwrap_or_default();
        let keys = issuer.keys.current();
        let key = keys.0.iter().find(|key| key.kid == kid);
        let key = key.ok_or_else(|| TokenError::Key { found: cut(&kid) })?;
        if header.alg != key.algorithm {
            let (found, expected) = (format!("{:?}", header.alg), format!("{:?}", key.algorithm));
            return Err(TokenError::Algorithm { found, expected });
        }
        let claims = verified_claims(token, key)?;
        check_times(&claims, now)?;
        check_audience(&claims, issuer.audience.as_deref())?;
        Ok(VerifiedToken { issuer: named.to_owned(), claims })
    }
}

/// Several verifiers, asked in turn: the first one that trusts the issuer decides.
#[derive(Default)]
pub struct AnyOf(Vec<Box<dyn TokenVerifier>>);

impl AnyOf {
    /// These.
    pub fn new(verifiers: Vec<Box<dyn TokenVerifier>>) -> Self {
        Self(verifiers)
    }
}

impl TokenVerifier for AnyOf {
    fn verify(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, TokenError> {
        let mut last = TokenError::Issuer { found: String::new() };
        for verifier in &self.0 {
            match verifier.verify(token, now) {
                Err(error @ TokenError::Issuer { .. }) => last = error,
                decided => return decided,
            }
        }
        Err(last)
    }
}

/// Refuses what would make the payload something else than its claims, and extensions that must be understood.
fn check_header(token: &str) -> Result<(), TokenError> {
    let text = token.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
    let header: Map<String, Value> =
        serde_json::from_slice(&header.map_err(|_| TokenError::Malformed)?)
            .map_err(|_| TokenError::Malformed)?;
    match ["crit", "b64", "enc", "zip"].into_iter().find(|member| header.contains_key(*member)) {
        Some(member) => Err(TokenError::Header(member)),
        None => Ok(()),
    }
}

/// Times and audience are judged by the caller, by the clock that it was given.
fn verified_claims(token: &str, key: &SigningKey) -> Result<Map<String, Value>, TokenError> {
    let mut rules = Validation::new(key.algorithm);
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    let verified = jsonwebtoken::decode(token, &key.key, &rules);
    Ok(verified.map_err(|_| TokenError::Signature)?.claims)
}

fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<(), TokenError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let time = |name: &str| {
        claims.get(name).map(|value| value.as_f64().ok_or(TokenError::Malformed)).transpose()
    };
    let expires = time("exp")?.ok_or(TokenError::Expired)?;
    if now >= expires + LEEWAY.as_secs_f64() {
        return Err(TokenError::Expired);
    }
    match time("nbf")? {
        Some(begins) if now + LEEWAY.as_secs_f64() < begins => Err(TokenError::NotYet),
        _ => Ok(()),
    }
}

fn check_audience(claims: &Map<String, Value>, expected: Option<&str>) -> Result<(), TokenError> {
    let Some(expected) = expected else { return Ok(()) };
    let met = match claims.get("aud") {
        Some(Value::String(one)) => one == expected,
        Some(Value::Array(several)) => several.iter().any(|one| one == expected),
        _ => false,
    };
    if met { Ok(()) } else { Err(TokenError::Audience) }
}

fn same_issuer(a: &str, b: &str) -> bool {
    a.strip_suffix('/').unwrap_or(a) == b.strip_suffix('/').unwrap_or(b)
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
