//! The decision log: one JSON object a line, on disk before the answer that it speaks of goes out.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ah_digest::Sha256;
use ah_release_api::policy::{ConditionResult, Operator, Scalar};
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
    /// This line stands for so many refusals before verification, within a minute from its time: those after the first 60.
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

#[cfg(test)]
mod tests {
    use super::*;

    impl DecisionLog {
        /// A log whose disk is full.
        pub(crate) fn broken() -> Self {
            let file = File::options().write(true).open("/dev/full").unwrap();
            Self { path: "/dev/full".into(), state: Mutex::new(State { file, torn: false }) }
        }
    }

    fn entry() -> LogEntry {
        LogEntry::new(Event::Import, None, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn lines_are_added_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for _ in 0..2 {
            DecisionLog::open(&path).unwrap().append(&entry()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let line = r#"{"time":"1970-01-01T00:00:00Z","event":"import","decision":"refused","key_id":null,"reasons":[]}"#;
        assert_eq!(text, format!("{line}\n{line}\n"));
    }

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = DecisionLog::open(&path).unwrap();
        {
            let mut state = log.state.lock().unwrap();
            state.file.write_all(b"{\"time\":\"19").unwrap();
            state.torn = true;
        }
        log.append(&entry()).unwrap();
        log.append(&entry()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.ends_with('}')).count(), 2, "{text}");
        assert!(DecisionLog::broken().append(&entry()).is_err());
    }
}
