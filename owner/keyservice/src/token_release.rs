//! Release to whoever holds an attestation token: the vault's way. The token's claims decide, and the key goes to the key pair that
//! the attested guest put into the token.

use std::time::SystemTime;

use ah_digest::Sha256;
use ah_release_api::policy::{Claims, HARDWARE_TEE, TDX_VM, claim};
use ah_release_api::{KeyId, RefusedBy};
use serde_json::{Map, Value, json};

use crate::answer::AnswerSigner;
use crate::encoding::encode_base64url;
use crate::journal::Change;
use crate::keywrap::{WrapAlgorithm, WrappingKey};
use crate::log::{Event, LogEntry, Verdict};
use crate::release::{Refused, check_rule, refuse_weak, releasable, shown};
use crate::service::KeyService;
use crate::tokens::TokenVerifier;
use crate::vault::{KeyInfo, StoredKey};
use crate::weakness::unnamed_weaknesses_of_token;

/// The kinds of guests that a token can be about, where it says one.
const KINDS: [&str; 2] = [HARDWARE_TEE, TDX_VM];
/// Longest nonce of a request, bytes.
const MAX_NONCE_BYTES: usize = 256;

/// What a caller asks for.
pub struct TokenRequest<'a> {
    /// Which key.
    pub id: &'a KeyId,
    /// Which version; the latest one where none is named.
    pub version: Option<&'a str>,
    /// The attestation token.
    pub token: &'a str,
    /// How the key is to be wrapped.
    pub algorithm: WrapAlgorithm,
    /// Given back in the signed answer.
    pub nonce: Option<&'a str>,
    /// Given back in the signed answer.
    pub api_version: &'a str,
    /// `https://host[:port]` of this service, for the key's address in the answer.
    pub base_url: &'a str,
    /// Who called.
    pub caller: Option<&'a str>,
}

/// Why nothing was released: which check, and what the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Which check.
    pub by: RefusedBy,
    /// In words.
    pub reason: String,
    /// There is no such key or version.
    pub missing: bool,
}

impl KeyService {
    /// Decides on a token, logs the decision, and gives the signed answer with the wrapped key.
    ///
    /// # Errors
    /// [`TokenRefusal`]; it is in the log.
    pub async fn release_by_token(
        &self,
        request: &TokenRequest<'_>,
        verifier: &dyn TokenVerifier,
        signer: &AnswerSigner,
    ) -> Result<String, TokenRefusal> {
        let now = self.environment().now();
        let mut entry = LogEntry::new(Event::Release, Some(request.id.clone()), now);
        entry.caller = request.caller.map(str::to_owned);
        let refused = match self.decide_by_token(request, verifier, signer, now, &mut entry).await {
            Ok(answer) => {
                entry.decision = Verdict::Released;
                match self.write(Change::None, &entry).await {
                    Ok(_) => return Ok(answer),
                    // What is not in the log does not happen.
                    Err(error) => Refused::internal(&error),
                }
            }
            Err(refused) => refused,
        };
        entry.decision = Verdict::Refused;
        entry.refused_by = Some(refused.told.by);
        entry.reasons = refused.reasons;
        if !entry.claims.is_empty() || self.admits().await {
            let _ = self.write(Change::None, &entry).await;
        }
        let missing = refused.told.by == RefusedBy::KeyStore && entry.key_version.is_none();
        Err(TokenRefusal { by: refused.told.by, reason: refused.told.to_string(), missing })
    }

    async fn decide_by_token(
        &self,
        request: &TokenRequest<'_>,
        verifier: &dyn TokenVerifier,
        signer: &AnswerSigner,
        now: SystemTime,
        entry: &mut LogEntry,
    ) -> Result<String, Refused> {
        if request.nonce.is_some_and(|nonce| nonce.len() > MAX_NONCE_BYTES) {
            return Err(Refused::new(
                RefusedBy::Request,
                format!("nonce is longer than {MAX_NONCE_BYTES} bytes"),
            ));
        }
        let token = verifier
            .verify(request.token, now)
            .map_err(|error| Refused::of(RefusedBy::Verifier, &error))?;
        entry.authority = Some(token.issuer.clone());
        entry.claims = token.claims.clone();
        let claims = Claims::from_json(token.claims);
        entry.tee = claims
            .find(claim::TEE)
            .or_else(|| claims.find(claim::ATTESTATION_TYPE))
            .map(|tee| tee.to_string());
        check_kind(&claims)?;
        let key = self.find_version(request.id, request.version).await?;
        entry.key_version = Some(key.info.version.clone());
        let rule =
            releasable(&key.info).map_err(|words| Refused::new(RefusedBy::KeyStore, words))?;
        entry.policy_sha256 = Some(Sha256::of(&rule.text));
        let met = check_rule(rule, &token.issuer, &claims, entry)?;
        refuse_weak(&unnamed_weaknesses_of_token(&claims, &met))?;
        let wrapping = WrappingKey::of_claims(claims.as_json())
            .map_err(|error| Refused::of(RefusedBy::Request, &error))?;
        let wrapped = wrapping
            .wrap(request.algorithm, key.secret.as_bytes(), self.environment())
            .map_err(|error| Refused::of(RefusedBy::Request, &error))?;
        let payload = payload(request, &key.info, wrapping.kid.as_deref(), &wrapped);
        signer.sign(&payload).map_err(|error| Refused::internal(&error))
    }

    async fn find_version(&self, id: &KeyId, version: Option<&str>) -> Result<StoredKey, Refused> {
        match self.vault().find(id, version).await {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(Refused::new(RefusedBy::KeyStore, format!("there is no key {id}"))),
            Err(error) => Err(Refused::internal(&error)),
        }
    }
}

/// Other kinds of guests have their weaknesses under other names, which nobody looks at here: a debuggable one would pass.
fn check_kind(claims: &Claims) -> Result<(), Refused> {
    let found = match claims.as_json().get(claim::ATTESTATION_TYPE) {
        None => return Ok(()),
        Some(Value::String(kind)) if KINDS.contains(&kind.as_str()) => return Ok(()),
        Some(Value::String(kind)) => kind.clone(),
        Some(other) => other.to_string(),
    };
    let (found, expected) = (shown(&found), KINDS.join(" or "));
    let words = format!("{}: found {found}, expected {expected}", claim::ATTESTATION_TYPE);
    Err(Refused::new(RefusedBy::Appraisal, words))
}

/// The answer's payload, member by member what clients of the cloud's vaults read.
fn payload(
    request: &TokenRequest<'_>,
    key: &KeyInfo,
    wrapping_kid: Option<&str>,
    wrapped: &[u8],
) -> Value {
    let kid = format!("{}/keys/{}/{}", request.base_url, key.id, key.version);
    let enc = request.algorithm.name();
    let hsm = json!({
        "schema_version": "1.0",
        "header": { "kid": wrapping_kid.unwrap_or_default(), "alg": "dir", "enc": enc },
        "ciphertext": encode_base64url(wrapped),
    });
    let mut asked = json!({ "api-version": request.api_version, "enc": enc, "kid": kid });
    if let Some(nonce) = request.nonce {
        asked["nonce"] = nonce.into();
    }
    let mut bundle = bundle(key, request.base_url);
    bundle["key"]["key_hsm"] = encode_base64url(hsm.to_string()).into();
    json!({ "request": asked, "response": { "key": bundle } })
}

/// A key as vaults describe it; its secret is no part of that.
pub fn bundle(key: &KeyInfo, base_url: &str) -> Value {
    let kid = format!("{base_url}/keys/{}/{}", key.id, key.version);
    let mut jwk = Map::new();
    jwk.insert("kid".into(), kid.into());
    jwk.insert("kty".into(), key.kty.name().into());
    jwk.insert("key_ops".into(), key.ops.clone().into());
    jwk.extend(key.public.clone());
    let mut bundle = json!({ "key": jwk, "attributes": attributes(key) });
    if let Some(rule) = &key.rule {
        let mut policy = json!({
            "contentType": "application/json; charset=utf-8",
            "data": encode_base64url(&rule.text),
        });
        if rule.immutable {
            policy["immutable"] = true.into();
        }
        bundle["release_policy"] = policy;
    }
    bundle
}

/// A key's attributes as vaults describe them.
pub fn attributes(key: &KeyInfo) -> Value {
    let of = &key.attributes;
    let mut all = json!({
        "enabled": of.enabled,
        "created": of.created_s,
        "updated": of.updated_s,
        "recoveryLevel": "Purgeable",
        "exportable": of.exportable,
    });
    for (name, time) in [("nbf", of.not_before_s), ("exp", of.expires_s)] {
        if let Some(time) = time {
            all[name] = time.into();
        }
    }
    all
}
