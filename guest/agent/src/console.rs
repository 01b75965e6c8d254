//! Lines for the host's console. Nothing else of the agent's leaves the guest: what is logged is what is passed to this module.

use std::sync::atomic::{AtomicU8, Ordering};

use ah_guest_sys::kernel::console_line;

/// How much is told; fixed by the measured command line (`anchorhold.log=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Failures of the guest itself.
    Error = 0,
    /// One line for each request that was refused or failed.
    Info = 1,
    /// One line for each request.
    Debug = 2,
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            other => Err(format!("log level: found {other:?}, expected error, info or debug")),
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Error as u8);

/// Sets how much is told from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Tells the host `text` when the level says so.
pub fn tell(level: Level, text: &str) {
    if level as u8 <= LEVEL.load(Ordering::Relaxed) {
        console_line(&format!("anchorhold-agent: {text}"));
    }
}
