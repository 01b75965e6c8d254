//! What the decision log says: one JSON object for each thing that happened.

use std::time::SystemTime;

use ah_digest::Sha256;
use ah_release_api::policy::{ConditionResult, Operator, Scalar};
use ah_release_api::{KeyId, RefusedBy};
use serde::Serialize;
use serde_json::{Map, Value};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A guest asked for a key.
    Release,
    /// The owner put a key in.
    Import,
    /// The service made a key or a further version of one.
    Create,
    /// The owner changed what a key may be used for.
    Update,
    /// The owner took a key out.
    Delete,
    /// The service changed a secret of its own; `reasons` says which.
    Secret,
    /// A caller asked for what its roles do not allow, or without a name.
    Access,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The key went out, wrapped.
    Released,
    /// Nothing went out.
    Refused,
    /// The owner's wish was carried out.
    Done,
}

/// One entry of the log. Nothing in it is secret, and nothing of a key's bytes is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogEntry {
    /// When, RFC 3339, UTC.
    pub time: String,
    /// What happened.
    pub event: Event,
    /// What came of it.
    pub decision: Verdict,
    /// Which key; null when the request could not be read.
    pub key_id: Option<KeyId>,
    /// Which version of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_version: Option<String>,
    /// Who called, by the name that the service knows the caller by; null for guests, whom their evidence names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Who made the claims, where it was not this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Which check refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<RefusedBy>,
    /// Why, with all causes.
    pub reasons: Vec<String>,
    /// Kind of TEE, by the root of the evidence; null before the evidence is verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tee: Option<String>,
    /// The policy's comparisons: those that it was met by, or those that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<LoggedCondition>,
    /// All claims of the evidence; empty before the evidence is verified.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// SHA-256 of the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_sha256: Option<Sha256>,
    /// SHA-256 of the request's runtime data: names the exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_data_sha256: Option<Sha256>,
    /// This entry stands for so many refusals before verification, within a minute from its time: those after the first 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
}

/// One comparison of a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggedCondition {
    /// The claim.
    pub claim: String,
    /// How it is compared; left out for `equals`.
    #[serde(skip_serializing_if = "Operator::is_equals")]
    pub operator: Operator,
    /// Its value; null when missing.
    pub found: Option<Scalar>,
    /// The policy's value.
    pub expected: Scalar,
}

impl From<&ConditionResult> for LoggedCondition {
    fn from(result: &ConditionResult) -> Self {
        let ConditionResult { claim, operator, found, expected } = result.clone();
        Self { claim, operator, found, expected }
    }
}

impl LogEntry {
    pub(crate) fn new(event: Event, key_id: Option<KeyId>, now: SystemTime) -> Self {
        Self {
            time: jiff::Timestamp::try_from(now).map(|time| time.to_string()).unwrap_or_default(),
            event,
            decision: Verdict::Refused,
            key_id,
            key_version: None,
            caller: None,
            authority: None,
            refused_by: None,
            reasons: Vec::new(),
            tee: None,
            conditions: Vec::new(),
            claims: Map::new(),
            policy_sha256: None,
            runtime_data_sha256: None,
            left_out: None,
        }
    }
}
