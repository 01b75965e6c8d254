//! Why a lock file is not used, and what to do about it.

use std::io;

use ah_digest::Sha256;
use ah_oci::Platform;

/// Why a lock file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The file could not be read or written.
    #[error("lock file {path:?} is not accessible")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Not a lock file.
    #[error("lock file is not valid: {reason}")]
    Form {
        /// The parser's words.
        reason: String,
    },
    /// Made by a program whose root hashes or form are others.
    #[error("lock file has {what} {found}, expected {expected}")]
    Version {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What this program writes.
        expected: u32,
    },
    /// An image that is not in it.
    #[error("lock file has no image {name:?} for {platform}")]
    Missing {
        /// The name.
        name: String,
        /// The platform.
        platform: Platform,
    },
    /// The manifest names another digest than the file.
    #[error("lock file is stale: image {name:?} is locked to {found}, expected {expected}")]
    Stale {
        /// The name.
        name: String,
        /// The digest in the file.
        found: Sha256,
        /// The digest in the name, or that the registry has now.
        expected: Sha256,
    },
    /// Two entries, or parts of one, that cannot both be true.
    #[error("lock file contradicts itself: {what}")]
    Contradiction {
        /// What does not fit.
        what: String,
    },
}

impl LockError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::Missing { .. } => {
                Some("generate once with --lock and without --offline, which adds what is missing")
            }
            _ => Some(
                "remove the file or the entry, and generate once with --lock and without --offline",
            ),
        }
    }
}
