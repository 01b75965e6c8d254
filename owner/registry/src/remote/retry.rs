//! When a request is made again, and after how long.

use std::time::Duration;

/// Attempts for one request, the first counted.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// The first wait where the registry does not say one; doubled each time.
const BASE: Duration = Duration::from_millis(250);
/// The longest wait that is kept, whoever says it.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What to do after an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait, then ask again.
    Again(Duration),
    /// It will not get better.
    GiveUp,
    /// It would get better after longer than is waited for.
    TooLong(Duration),
}

/// After an answer. `attempts` counts those that were made.
pub(super) fn after_status(status: u16, retry_after: Option<&str>, attempts: u32) -> Next {
    // RFC 9110 15.5.9, 15.6; RFC 6585 4
    if !matches!(status, 408 | 429 | 500 | 502..=504) || attempts >= MAX_ATTEMPTS {
        return Next::GiveUp;
    }
    // RFC 9110 10.2.3: seconds or a date; a date is taken as no answer, for clocks differ
    match retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs) {
        Some(wait) if wait > MAX_WAIT => Next::TooLong(wait),
        Some(wait) => Next::Again(wait),
        None => Next::Again(backoff(attempts)),
    }
}

/// After a connection that could not be made or broke off.
pub(super) fn after_failure(attempts: u32) -> Next {
    if attempts >= MAX_ATTEMPTS - 2 { Next::GiveUp } else { Next::Again(backoff(attempts)) }
}

fn backoff(attempts: u32) -> Duration {
    BASE.saturating_mul(1 << attempts.saturating_sub(1).min(6)).min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_the_registrys_or_double_and_end() {
        let ms = |ms| Next::Again(Duration::from_millis(ms));
        for (status, retry_after, attempts, expect) in [
            (429, Some("7"), 1, ms(7000)),
            (429, Some("0"), 1, ms(0)),
            (503, None, 1, ms(250)),
            (503, None, 3, ms(1000)),
            (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), 2, ms(500)),
            (503, None, MAX_ATTEMPTS, Next::GiveUp),
            (404, None, 1, Next::GiveUp),
            (401, Some("1"), 1, Next::GiveUp),
            (501, None, 1, Next::GiveUp),
            (429, Some("61"), 1, Next::TooLong(Duration::from_secs(61))),
            (429, Some("99999999999999999999"), 1, ms(250)),
        ] {
            assert_eq!(after_status(status, retry_after, attempts), expect, "{status} {attempts}");
        }
        assert_eq!(after_failure(1), ms(250));
        assert_eq!(after_failure(3), Next::GiveUp);
    }
}
