use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Longest text of a failure, bytes; the log has all of it.
const MAX_ERROR_BYTES: usize = 256;

/// The number of a span, which no other of this process has, and hardly one of another process of the machine.
pub fn next_span() -> u64 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    u64::from(std::process::id()) << 32 | u64::from(number)
}

/// A call that has ended, as a collector of traces wants it. Places are texts in the form of `traceparent` (W3C Trace Context).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its own place.
    pub at: String,
    /// The place of the call that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<String>,
    /// What was called.
    pub name: String,
    /// The sandbox's id; empty where it is about none.
    #[serde(default)]
    pub subject: String,
    /// Begin, nanoseconds since 1970.
    pub begin: u64,
    /// End, nanoseconds since 1970.
    pub end: u64,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Span {
    /// A span that began then and took so long.
    #[must_use]
    pub fn lasting(self, began: SystemTime, took: Duration) -> Self {
        let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { begin: nanoseconds(since), end: nanoseconds(since.saturating_add(took)), ..self }
    }

    /// A span that failed for this reason, of which it keeps the beginning.
    #[must_use]
    pub fn failed(self, reason: Option<String>) -> Self {
        let error = reason.map(|mut reason| {
            let whole = |end: &usize| reason.is_char_boundary(*end);
            let end = (0..=MAX_ERROR_BYTES.min(reason.len())).rev().find(whole);
            reason.truncate(end.unwrap_or(0));
            reason
        });
        Self { error, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let span = Span {
            at: String::new(),
            above: None,
            name: "x".into(),
            subject: "y".into(),
            begin: 0,
            end: 0,
            error: None,
        };
        let reason = format!("a{}", "ä".repeat(MAX_ERROR_BYTES));
        let cut = span.clone().failed(Some(reason)).error.unwrap();
        assert_eq!((cut.len(), cut.chars().count()), (255, 128));
        let began = UNIX_EPOCH + Duration::from_micros(7);
        let lasting = span.lasting(began, Duration::from_nanos(5));
        assert_eq!((lasting.begin, lasting.end), (7000, 7005));
    }
}
