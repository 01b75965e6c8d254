//! Requests and answers, and their one JSON form.

use ah_evidence::Evidence;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::policy::{ConditionResult, Operator, Scalar};
use crate::{KeyId, KeyKind, Nonce, PROTOCOL, WrappedKey, frame};

/// Longest text of a refusal, characters.
const MAX_REASON_CHARS: usize = 1000;
/// Longest value of a claim that is told to a peer, characters.
const MAX_VALUE_CHARS: usize = 200;
/// Most claims told to a peer.
const MAX_UNMET: usize = 32;

/// What a guest sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Asks for a nonce.
    Challenge {},
    /// Asks for a key.
    Release(Box<ReleaseRequest>),
}

/// A guest asks for a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Which key; the same one as in the runtime data.
    pub key_id: KeyId,
    /// The report, its certificates, and the runtime data ([`crate::RuntimeData`]) that it binds.
    pub evidence: Evidence,
}

/// What a key service answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// A nonce.
    Challenge(Challenge),
    /// The key.
    Released(Released),
    /// No key.
    Refused(Refusal),
}

/// A nonce to be bound by a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// Good for one release request.
    pub nonce: Nonce,
    /// How long it is good for, seconds.
    pub expires_in_s: u32,
}

/// A key, wrapped to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// What kind of bytes the key is.
    pub kind: KeyKind,
    /// The key.
    pub wrapped: WrappedKey,
}

/// Who refused: which of the service's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// The message could not be read.
    Request,
    /// The nonce is not open.
    Nonce,
    /// The report, its signature or its certificates.
    Verifier,
    /// The report does not bind the runtime data.
    ReportData,
    /// A rule of the service that holds for every key: debuggable guests, software TEEs.
    Appraisal,
    /// The key's release policy.
    ReleasePolicy,
    /// There is no such key.
    KeyStore,
    /// The service itself failed; its log says more.
    Service,
}

impl std::fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "the key service's request check",
            Self::Nonce => "the key service's nonce check",
            Self::Verifier => "the key service's report verifier",
            Self::ReportData => "the key service's report-data check",
            Self::Appraisal => "the key service's appraisal",
            Self::ReleasePolicy => "the key's release policy",
            Self::KeyStore => "the key store",
            Self::Service => "the key service (an error of its own)",
        })
    }
}

/// Why no key is released, as the peer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Which check.
    pub by: RefusedBy,
    /// Why, in words.
    pub reason: String,
    /// The claims that were not met; empty unless a policy refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<UnmetClaim>,
}

/// A claim that the evidence does not carry as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmetClaim {
    /// Name of the claim.
    pub claim: String,
    /// How it is compared; left out for `equals`.
    #[serde(default, skip_serializing_if = "Operator::is_equals")]
    pub operator: Operator,
    /// Its value in the evidence; null when missing.
    pub found: Option<Scalar>,
    /// The value that it is compared with.
    pub expected: Scalar,
}

impl Refusal {
    /// A refusal whose text is cut to what a peer may be sent.
    pub fn new(by: RefusedBy, reason: &str) -> Self {
        Self { by, reason: shortened(reason, MAX_REASON_CHARS), unmet: Vec::new() }
    }

    /// The same refusal within those bounds: whoever carries the bytes may have written it.
    fn bounded(self) -> Self {
        let unmet = self.unmet.iter().take(MAX_UNMET).map(UnmetClaim::bounded).collect();
        Self { unmet, ..Self::new(self.by, &self.reason) }
    }

    /// The refusal of a release policy.
    pub fn unmet(by: RefusedBy, reason: &str, failed: &[ConditionResult]) -> Self {
        let unmet = failed.iter().take(MAX_UNMET).map(UnmetClaim::from).collect();
        Self { unmet, ..Self::new(by, reason) }
    }
}

impl UnmetClaim {
    fn bounded(&self) -> Self {
        Self {
            claim: shortened(&self.claim, MAX_VALUE_CHARS),
            operator: self.operator,
            found: self.found.as_ref().map(short_value),
            expected: short_value(&self.expected),
        }
    }
}

impl From<&ConditionResult> for UnmetClaim {
    fn from(result: &ConditionResult) -> Self {
        let ConditionResult { claim, operator, found, expected } = result.clone();
        Self { claim, operator, found, expected }.bounded()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused by {}: {}", self.by, self.reason)?;
        self.unmet.iter().try_for_each(|unmet| {
            let UnmetClaim { claim, operator, found, expected } = unmet.clone();
            write!(f, "; {}", ConditionResult { claim, operator, found, expected })
        })
    }
}

fn short_value(value: &Scalar) -> Scalar {
    match value {
        Scalar::Text(text) => Scalar::Text(shortened(text, MAX_VALUE_CHARS)),
        other => other.clone(),
    }
}

fn shortened(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max_chars).collect()
}

/// Why bytes are not a message, or a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Too long.
    #[error("message has {found} bytes, expected at most {}", frame::MAX_BODY_BYTES)]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// Not JSON of a message's shape.
    #[error("message is not JSON of {PROTOCOL}")]
    Json(#[source] serde_json::Error),
    /// Another protocol or version.
    #[error("message is for protocol {found:?}, expected {PROTOCOL:?}")]
    Protocol {
        /// The protocol named in the message.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<T> {
    protocol: String,
    message: T,
}

impl Request {
    /// The JSON form, without frame.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, MessageError> {
        write(self)
    }

    /// Reads a request: no unknown member, nothing after it.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, MessageError> {
        read(bytes)
    }
}

impl Response {
    /// The JSON form, without frame.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn to_json(&self) -> Result<Vec<u8>, MessageError> {
        write(self)
    }

    /// Reads an answer: no unknown member, nothing after it. The texts of a refusal are cut and freed of control characters, since
    /// they end in logs and on terminals.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(match read(bytes)? {
            Self::Refused(refusal) => Self::Refused(refusal.bounded()),
            other => other,
        })
    }
}

fn write<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = serde_json::to_vec(&Wire { protocol: PROTOCOL.into(), message })
        .map_err(MessageError::Json)?;
    match bytes.len() {
        found if found > frame::MAX_BODY_BYTES => Err(MessageError::TooLong { found }),
        _ => Ok(bytes),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    #[derive(Deserialize)]
    struct OnlyProtocol {
        protocol: String,
    }
    if bytes.len() > frame::MAX_BODY_BYTES {
        return Err(MessageError::TooLong { found: bytes.len() });
    }
    match serde_json::from_slice::<Wire<T>>(bytes) {
        Ok(wire) if wire.protocol == PROTOCOL => Ok(wire.message),
        Ok(wire) => Err(MessageError::Protocol { found: wire.protocol }),
        // Another version may well have other members: then the version is the better answer.
        Err(error) => match serde_json::from_slice::<OnlyProtocol>(bytes) {
            Ok(OnlyProtocol { protocol }) if protocol != PROTOCOL => {
                Err(MessageError::Protocol { found: protocol })
            }
            _ => Err(MessageError::Json(error)),
        },
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
