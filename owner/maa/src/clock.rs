//! The time, given by whoever puts the service together.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Whole seconds since 1970; a clock before it stands at 0.
pub(crate) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
