//! Attestation tokens: a JWT (RFC 7519) as attestation services issue them, against the keys of a JWKS document (RFC 7517).
//!
//! The keys are whoever's the caller believes; nothing is fetched, and `jku` and `x5c` of the token itself are not looked at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use const_oid::db::rfc5912::RSA_ENCRYPTION;
use der::asn1::UintRef;
use der::{Decode as _, Reader as _, SliceReader};
use serde::Deserialize;
use serde_json::{Map, Value};
use x509_cert::Certificate;

/// Largest token, bytes.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;
/// Largest JWKS document, bytes.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;
/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(60);

/// The keys of an issuer.
#[derive(Debug, Clone)]
pub struct TokenKeys(Vec<Jwk>);

#[derive(Debug, Clone, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// Keys have more members than are read (RFC 7517, section 4): those that are not known say nothing here.
#[derive(Debug, Clone, Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    x5c: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    crit: Option<Value>,
    zip: Option<Value>,
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Larger than a limit.
    #[error("{what} has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// Length found, bytes.
        found: usize,
        /// Limit, bytes.
        limit: usize,
    },
    /// The JWKS document is not one.
    #[error("jwks document is malformed")]
    Jwks(#[source] serde_json::Error),
    /// Not three parts of base64url with JSON in them.
    #[error("token is malformed: its {part} is not as expected")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// No key of this name, or more than one.
    #[error("token names key {kid:?}, of which there are {found}, expected 1")]
    Key {
        /// Name found.
        kid: String,
        /// How many keys have it.
        found: usize,
    },
    /// An algorithm that is not taken, or not the key's.
    #[error("token is signed with {found:?}, which is not an algorithm for its key")]
    Algorithm {
        /// Algorithm found.
        found: String,
    },
    /// Not signed by the key.
    #[error("token's signature does not verify")]
    Signature,
    /// Too early or too late.
    #[error("token is not valid now: {claim} is {found}, now is {now}, in seconds since 1970")]
    Time {
        /// Which claim.
        claim: &'static str,
        /// Its value.
        found: u64,
        /// Now.
        now: u64,
    },
    /// Issued by another issuer.
    #[error("token is issued by {found:?}, expected {expected:?}")]
    Issuer {
        /// Issuer found.
        found: String,
        /// Issuer expected.
        expected: String,
    },
}

impl TokenError {
    /// Name of the check that was not passed.
    pub fn check(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::Malformed { .. } => "token.encoding",
            Self::Jwks(_) => "token.jwks",
            Self::Key { .. } => "token.key",
            Self::Algorithm { .. } => "token.algorithm",
            Self::Signature => "token.signature",
            Self::Time { .. } => "token.time",
            Self::Issuer { .. } => "token.issuer",
        }
    }
}

/// A token that a key of the JWKS document signed and that is valid now. Only [`verify_token`] makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    kid: String,
    algorithm: String,
    claims: Map<String, Value>,
}

impl VerifiedToken {
    /// Name of the key that signed.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Algorithm, as RFC 7518 names it.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

impl TokenKeys {
    /// Reads a JWKS document.
    ///
    /// # Errors
    /// [`TokenError::TooLarge`], [`TokenError::Jwks`].
    pub fn from_json(json: &[u8]) -> Result<Self, TokenError> {
        limit("jwks document", json.len(), MAX_JWKS_BYTES)?;
        let jwks: Jwks = serde_json::from_slice(json).map_err(TokenError::Jwks)?;
        Ok(Self(jwks.keys))
    }

    fn find(&self, kid: &str) -> Result<&Jwk, TokenError> {
        let mut named = self.0.iter().filter(|key| key.kid == kid);
        match (named.next(), named.count()) {
            (Some(key), 0) => Ok(key),
            (first, more) => {
                let found = more.saturating_add(usize::from(first.is_some()));
                Err(TokenError::Key { kid: kid.to_owned(), found })
            }
        }
    }
}

/// Verifies signature and time of a token, and its issuer if one is expected. No I/O, no clock.
///
/// # Errors
/// [`TokenError`], a variant per cause.
pub fn verify_token(
    token: &str,
    keys: &TokenKeys,
    issuer: Option<&str>,
    now: SystemTime,
) -> Result<VerifiedToken, TokenError> {
    limit("token", token.len(), MAX_TOKEN_BYTES)?;
    let malformed = |part| TokenError::Malformed { part };
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed("form"))?;
    let (header, payload) = signed.split_once('.').ok_or(malformed("form"))?;
    let decode = |part, text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(part));
    let header: Header =
        serde_json::from_slice(&decode("header", header)?).map_err(|_| malformed("header"))?;
    if header.crit.is_some() || header.zip.is_some() {
        return Err(malformed("header"));
    }
    let key = keys.find(&header.kid)?;
    key.verify(&header.alg, signed.as_bytes(), &decode("signature", signature)?)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&decode("payload", payload)?).map_err(|_| malformed("payload"))?;
    check_time(&claims, now)?;
    if let Some(expected) = issuer {
        let found = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        if found != expected {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            return Err(TokenError::Issuer { found, expected });
        }
    }
    Ok(VerifiedToken { kid: header.kid, algorithm: header.alg, claims })
}

/// A token without an end is none.
fn check_time(claims: &Map<String, Value>, now: SystemTime) -> Result<(), TokenError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(TokenError::Malformed { part: "payload" }),
    };
    let skew = SKEW.as_secs();
    let end = seconds("exp")?.ok_or(TokenError::Malformed { part: "payload" })?;
    if now > end.saturating_add(skew) {
        return Err(TokenError::Time { claim: "exp", found: end, now });
    }
    for claim in ["nbf", "iat"] {
        match seconds(claim)? {
            Some(found) if found > now.saturating_add(skew) => {
                return Err(TokenError::Time { claim, found, now });
            }
            _ => {}
        }
    }
    Ok(())
}

impl Jwk {
    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let wrong = || TokenError::Algorithm { found: algorithm.to_owned() };
        let fits = self.alg.as_deref().is_none_or(|alg| alg == algorithm)
            && self.usage.as_deref().is_none_or(|usage| usage == "sig");
        if !fits {
            return Err(wrong());
        }
        let refuse = |_| TokenError::Signature;
        match algorithm {
            "ES256" | "ES384" => {
                let point = self.point(algorithm).ok_or_else(wrong)?;
                let algorithm = match algorithm {
                    "ES256" => &ECDSA_P256_SHA256_FIXED,
                    _ => &ECDSA_P384_SHA384_FIXED,
                };
                UnparsedPublicKey::new(algorithm, point).verify(signed, signature).map_err(refuse)
            }
            _ => {
                let parameters = rsa_parameters(algorithm).ok_or_else(wrong)?;
                let (n, e) = self.rsa().ok_or_else(wrong)?;
                RsaPublicKeyComponents { n: &n, e: &e }
                    .verify(parameters, signed, signature)
                    .map_err(refuse)
            }
        }
    }

    /// Uncompressed point.
    fn point(&self, algorithm: &str) -> Option<Vec<u8>> {
        let (curve, length) = if algorithm == "ES256" { ("P-256", 32) } else { ("P-384", 48) };
        let part = |text: &Option<String>| {
            let bytes = URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()?;
            (bytes.len() == length).then_some(bytes)
        };
        let is_curve = self.kty == "EC" && self.crv.as_deref() == Some(curve);
        let (x, y) = (part(&self.x)?, part(&self.y)?);
        is_curve.then(|| [vec![4], x, y].concat())
    }

    /// Modulus and exponent: the key's own, or those of its certificate. Both, if there are both, must agree.
    fn rsa(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.kty != "RSA" {
            return None;
        }
        let decode = |text: &String| URL_SAFE_NO_PAD.decode(text).ok();
        let own = match (&self.n, &self.e) {
            (Some(n), Some(e)) => Some((decode(n)?, decode(e)?)),
            (None, None) => None,
            _ => return None,
        };
        let certified = match self.x5c.as_ref().and_then(|chain| chain.first()) {
            Some(text) => Some(certified(text)?),
            None => None,
        };
        match (own, certified) {
            (Some(own), Some(certified)) => (own == certified).then_some(own),
            (own, certified) => own.or(certified),
        }
    }
}

fn rsa_parameters(algorithm: &str) -> Option<&'static RsaParameters> {
    match algorithm {
        "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Some(&RSA_PSS_2048_8192_SHA256),
        "PS384" => Some(&RSA_PSS_2048_8192_SHA384),
        "PS512" => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// The RSA key of a certificate, base64 of DER.
fn certified(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = Certificate::from_der(&STANDARD.decode(text).ok()?).ok()?;
    let spki = certificate.tbs_certificate.subject_public_key_info;
    let key = spki.subject_public_key.as_bytes()?;
    let mut reader = SliceReader::new(key).ok()?;
    let parts = reader
        .sequence(|inner| {
            let modulus = UintRef::decode(inner)?.as_bytes().to_vec();
            Ok((modulus, UintRef::decode(inner)?.as_bytes().to_vec()))
        })
        .ok()?;
    (spki.algorithm.oid == RSA_ENCRYPTION && reader.is_finished()).then_some(parts)
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), TokenError> {
    if found > limit { Err(TokenError::TooLarge { what, found, limit }) } else { Ok(()) }
}
