//! A bound on what peers can make the decision log grow by before anything of them is verified.

use std::time::{Duration, SystemTime};

/// How long a count lasts.
const WINDOW: Duration = Duration::from_secs(60);
/// Most such refusals of one window that have lines of their own: more than a pod that asks for its keys in a loop makes.
pub(crate) const MAX_LINES: u64 = 60;

/// Counts the refusals before verification. Anybody who reaches the service causes them, at any rate and with texts that quote what
/// was sent; a log that kept each would fill the owner's disk, and a key whose release cannot be logged does not go out.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    since: Option<SystemTime>,
    written: u64,
    left_out: u64,
}

/// Refusals that have no lines of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// How many.
    pub(crate) count: u64,
    /// Since when.
    pub(crate) since: SystemTime,
}

impl Flood {
    /// Whether one more refusal gets its line.
    pub(crate) fn admits(&mut self, now: SystemTime) -> bool {
        self.since.get_or_insert(now);
        let fits = self.written < MAX_LINES;
        let count = if fits { &mut self.written } else { &mut self.left_out };
        *count = count.saturating_add(1);
        fits
    }

    /// Begins a new count when the last one is over, and gives what it left out. A clock that was set back ends a count too.
    pub(crate) fn ended(&mut self, now: SystemTime) -> Option<LeftOut> {
        let over = now.duration_since(self.since?).map_or(true, |age| age >= WINDOW);
        if over { self.end() } else { None }
    }

    /// Ends the count, whatever the time.
    pub(crate) fn end(&mut self) -> Option<LeftOut> {
        let Self { since, left_out: count, .. } = std::mem::take(self);
        since.filter(|_| count > 0).map(|since| LeftOut { count, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_log_flooded() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut flood = Flood::default();
        let admitted = (0..1000).filter(|_| flood.admits(start)).count();
        assert_eq!(u64::try_from(admitted).unwrap(), MAX_LINES);
        assert_eq!(flood.ended(start + WINDOW - Duration::from_millis(1)), None);
        let left_out = Some(LeftOut { count: 1000 - MAX_LINES, since: start });
        assert_eq!(flood.ended(start + WINDOW), left_out);
        assert_eq!(flood.ended(start + WINDOW), None, "told once");
        assert!(flood.admits(start + WINDOW));
        assert_eq!(flood.end(), None, "none was left out");
        let admitted = (0..=MAX_LINES).filter(|_| flood.admits(start)).count();
        assert_eq!(u64::try_from(admitted).unwrap(), MAX_LINES);
        let before = start - Duration::from_secs(1);
        assert_eq!(flood.ended(before), Some(LeftOut { count: 1, since: start }));
    }
}
