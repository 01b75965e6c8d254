//! All unsafe code and raw system calls of the guest.
//!
//! Every function names, in its error, the operation and the object it was applied to; the kernel's errno is the
//! error's source. Nothing here decides: callers come with a decision already made.

pub mod block;
pub mod device_mapper;
pub mod kernel;
pub mod mount;
pub mod process;
pub mod random;

use std::io;
use std::path::Path;

/// A system call that failed: what was tried, on what. The errno is [`std::error::Error::source`].
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct SysError {
    operation: &'static str,
    object: String,
    #[source]
    cause: io::Error,
}

impl SysError {
    pub(crate) fn new(
        operation: &'static str,
        object: impl Into<String>,
        cause: impl Into<io::Error>,
    ) -> Self {
        Self { operation, object: object.into(), cause: cause.into() }
    }

    pub(crate) fn path(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::new(operation, path.display().to_string(), cause)
    }

    /// The operation that failed, as a few words.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The kernel's answer.
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }
}
