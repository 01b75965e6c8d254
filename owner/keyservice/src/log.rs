//! The decision log: one JSON object a line, on disk before the answer that it speaks of goes out.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ah_digest::Sha256;
use ah_release_api::policy::{ConditionResult, Scalar};
use ah_release_api::{KeyId, RefusedBy};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::files::{FileError, Open, private_file};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A guest asked for a key.
    Release,
    /// The owner put a key in.
    Import,
    /// The owner took a key out.
    Delete,
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

/// One line of the log. Nothing in it is secret, and nothing of a key's bytes is.
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
}

/// One comparison of a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggedCondition {
    /// The claim.
    pub claim: String,
    /// Its value; null when missing.
    pub found: Option<Scalar>,
    /// The policy's value.
    pub expected: Scalar,
}

impl From<&ConditionResult> for LoggedCondition {
    fn from(result: &ConditionResult) -> Self {
        let ConditionResult { claim, found, expected } = result.clone();
        Self { claim, found, expected }
    }
}

impl LogEntry {
    pub(crate) fn new(event: Event, key_id: Option<KeyId>, now: SystemTime) -> Self {
        Self {
            time: jiff::Timestamp::try_from(now).map(|time| time.to_string()).unwrap_or_default(),
            event,
            decision: Verdict::Refused,
            key_id,
            refused_by: None,
            reasons: Vec::new(),
            tee: None,
            conditions: Vec::new(),
            claims: Map::new(),
            policy_sha256: None,
            runtime_data_sha256: None,
        }
    }
}

/// The file.
pub(crate) struct DecisionLog {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// A line was cut short by an error, so the next one begins on a line of its own.
    torn: bool,
}

impl DecisionLog {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = private_file(path, Open::Append)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { file, torn: false }) })
    }

    /// Appends one line. A key that goes out is on disk before; a refusal may be lost with the power.
    pub(crate) fn append(&self, entry: &LogEntry) -> Result<(), FileError> {
        let failed = || FileError::io("written", &self.path);
        let text = serde_json::to_string(entry).map_err(|error| failed()(error.into()))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = if state.torn { format!("\n{text}\n") } else { format!("{text}\n") };
        state.torn = true;
        state.file.write_all(line.as_bytes()).map_err(failed())?;
        state.torn = false;
        match entry.decision {
            Verdict::Refused => Ok(()),
            Verdict::Released | Verdict::Done => state.file.sync_data().map_err(failed()),
        }
    }
}
