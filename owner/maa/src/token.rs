//! Tokens: header and claims to a signed JWT, and a JWT to claims that its issuer vouched for.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base64url;
use crate::clock::unix_s;
use crate::jwks::{Jwk, Jwks, Numbers};
use crate::key::{Algorithm, KeyError, SigningKey};

/// Longest token that is read, bytes: MAA's with runtime data are under 20 KiB.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    jku: String,
    kid: &'a str,
    typ: &'static str,
}

/// Signs `claims` with `key`, whose public half `issuer` publishes at `<issuer>/certs`.
pub(crate) fn sign(
    key: &SigningKey,
    issuer: &str,
    claims: &Map<String, Value>,
) -> Result<String, KeyError> {
    let header = Header {
        alg: key.algorithm().name(),
        jku: format!("{issuer}/certs"),
        kid: key.public().kid.as_deref().unwrap_or_default(),
        typ: "JWT",
    };
    let part = |json: serde_json::Result<Vec<u8>>| {
        json.map(|json| base64url::encode(&json)).map_err(|_| KeyError::Sign)
    };
    let header = part(serde_json::to_vec(&header))?;
    let claims = part(serde_json::to_vec(claims))?;
    let message = format!("{header}.{claims}");
    let signature = base64url::encode(&key.sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// Claims that the expected issuer signed, for a time that includes now.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    claims: Map<String, Value>,
    issuer: String,
    expires_s: u64,
}

impl VerifiedToken {
    /// The claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The issuer, the authority of release policies.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `exp`, seconds since 1970.
    pub fn expires_s(&self) -> u64 {
        self.expires_s
    }
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token.
    #[error("token has {found} bytes, expected at most {MAX_TOKEN_BYTES}")]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// Not a JWT whose parts can be read.
    #[error("token is not a signed jwt: {0}")]
    Form(String),
    /// The header asks for something that is not understood here.
    #[error("token header has {0:?}, expected a plain signed token")]
    Header(&'static str),
    /// The header names no key.
    #[error("token header has no kid, expected the id of one of the issuer's keys")]
    NoKeyId,
    /// No published key has the id.
    #[error("token is signed with key {kid:?}, which its issuer does not publish (any more)")]
    UnknownKey {
        /// The id in the header.
        kid: String,
    },
    /// The published key is not for signatures of the kinds that are known here, or contradicts itself.
    #[error("key {kid:?} of the issuer is not an RS256 or ES256 signature key")]
    UnusableKey {
        /// The id.
        kid: String,
    },
    /// The header names another algorithm than the key's.
    #[error("token names algorithm {found}, expected {expected}, that of its key")]
    Algorithm {
        /// In the header.
        found: String,
        /// The key's.
        expected: &'static str,
    },
    /// Signature or claims were changed, or another key signed.
    #[error("signature of the token is not that of its issuer's key")]
    Signature,
    /// A claim that must be there, of the right kind.
    #[error("token has no usable claim {0:?}")]
    Claim(&'static str),
    /// Another issuer.
    #[error("token is issued by {found:?}, expected {expected:?}")]
    Issuer {
        /// Found.
        found: String,
        /// Expected.
        expected: String,
    },
    /// Too old.
    #[error("token expired {by_s} s ago")]
    Expired {
        /// For how long, seconds, leeway not counted.
        by_s: u64,
    },
    /// Not valid yet.
    #[error("token is valid in {by_s} s only")]
    NotYet {
        /// From when on, seconds, leeway not counted.
        by_s: u64,
    },
}

/// The claims of `token`, if `issuer` signed it with one of the keys in `jwks` and `now` is within its time, give or take `leeway`.
///
/// The algorithm is the key's, never the header's choice: `none` and HMAC do not exist here. `exp` and `iss` are required.
///
/// # Errors
/// [`TokenError`], a variant per cause.
pub fn verify_token(
    token: &str,
    jwks: &Jwks,
    now: SystemTime,
    issuer: &str,
    leeway: Duration,
) -> Result<VerifiedToken, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong { found: token.len() });
    }
    let key = find_key(token, jwks)?;
    let claims = check_signature(token, key)?;
    let text = |name| claims.get(name).and_then(Value::as_str).ok_or(TokenError::Claim(name));
    let found = text("iss")?;
    if !same_issuer(found, issuer) {
        return Err(TokenError::Issuer { found: found.to_owned(), expected: issuer.to_owned() });
    }
    let issuer = found.to_owned();
    let expires_s = check_time(&claims, now, leeway)?;
    Ok(VerifiedToken { claims, issuer, expires_s })
}

/// Issuers are written with and without a slash at the end.
fn same_issuer(a: &str, b: &str) -> bool {
    a.strip_suffix('/').unwrap_or(a) == b.strip_suffix('/').unwrap_or(b)
}

fn find_key<'a>(token: &str, jwks: &'a Jwks) -> Result<&'a Jwk, TokenError> {
    let kid = header_kid(token)?;
    jwks.keys
        .iter()
        .find(|key| key.kid.as_deref() == Some(&kid))
        .ok_or(TokenError::UnknownKey { kid })
}

/// The header's key id. The header is read loosely first, so that an algorithm that is not known gets its own words.
fn header_kid(token: &str) -> Result<String, TokenError> {
    let form = |error: &dyn std::fmt::Display| TokenError::Form(error.to_string());
    let part = token.split('.').next().unwrap_or_default();
    let header = base64url::decode(part).map_err(|error| form(&error))?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|error| form(&error))?;
    // A JWS whose extension is not understood is invalid (RFC 7515 section 4.1.11); the others change what the payload is.
    for member in ["crit", "b64", "enc", "zip"] {
        if header.contains_key(member) {
            return Err(TokenError::Header(member));
        }
    }
    let kid = header.get("kid").and_then(Value::as_str);
    kid.filter(|kid| !kid.is_empty()).map(str::to_owned).ok_or(TokenError::NoKeyId)
}

fn check_signature(token: &str, key: &Jwk) -> Result<Map<String, Value>, TokenError> {
    let unusable = || TokenError::UnusableKey { kid: key.kid.clone().unwrap_or_default() };
    let expected = key.algorithm().ok_or_else(unusable)?;
    let algorithm = match expected {
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
    };
    let found = decode_header(token).map(|header| header.alg).ok();
    if found != Some(algorithm) {
        let found = found.map_or_else(|| "another".to_owned(), |found| format!("{found:?}"));
        return Err(TokenError::Algorithm { found, expected: expected.name() });
    }
    let decoding = match key.numbers().ok_or_else(unusable)? {
        Numbers::Rsa { n, e } => DecodingKey::from_rsa_raw_components(&n, &e),
        Numbers::P256(point) => DecodingKey::from_ec_der(&point),
    };
    // Issuer and times are checked by the caller, against its own clock.
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    decode::<Map<String, Value>>(token, &decoding, &validation).map(|token| token.claims).map_err(
        |error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::Signature,
            _ => TokenError::Form(error.to_string()),
        },
    )
}

fn check_time(
    claims: &Map<String, Value>,
    now: SystemTime,
    leeway: Duration,
) -> Result<u64, TokenError> {
    let seconds = |name| match claims.get(name) {
        Some(value) => value.as_u64().map(Some).ok_or(TokenError::Claim(name)),
        None => Ok(None),
    };
    let (now, leeway) = (unix_s(now), leeway.as_secs());
    let expires = seconds("exp")?.ok_or(TokenError::Claim("exp"))?;
    if now >= expires.saturating_add(leeway) {
        return Err(TokenError::Expired { by_s: now.saturating_sub(expires) });
    }
    match seconds("nbf")? {
        Some(from) if from > now.saturating_add(leeway) => {
            Err(TokenError::NotYet { by_s: from.saturating_sub(now) })
        }
        _ => Ok(expires),
    }
}
