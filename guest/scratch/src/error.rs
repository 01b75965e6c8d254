use std::io;
use std::path::PathBuf;

use ah_guest_sys::SysError;

use crate::ext4::FormatError;

/// Why there is no scratch disk or no room on it. All of it is in the host's hand: it can deny service, nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The disk has too few sectors to be of use.
    #[error("scratch disk: found {found_sectors} sectors, expected at least {expected_sectors}")]
    TooSmall {
        /// Sectors of 512 bytes found.
        found_sectors: u64,
        /// Least number.
        expected_sectors: u64,
    },
    /// The disk is larger than file systems on it are made.
    #[error("scratch disk: found {found_sectors} sectors, expected at most {expected_sectors}")]
    TooLarge {
        /// Sectors of 512 bytes found.
        found_sectors: u64,
        /// Greatest number.
        expected_sectors: u64,
    },
    /// No key could be drawn, or the kernel refused a step.
    #[error("scratch disk")]
    Kernel(#[source] SysError),
    /// A file or folder of it could not be made or written.
    #[error("scratch disk: {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's refusal.
        #[source]
        source: io::Error,
    },
    /// A file system cannot be made in this size.
    #[error("scratch disk: making a file system")]
    Format(#[source] FormatError),
    /// There is one of that name already.
    #[error("scratch disk: {owner} is there already")]
    Exists {
        /// Whose files they would be.
        owner: String,
    },
    /// The pod's limits come to more than the disk has.
    #[error(
        "scratch disk: {owner} with its limit needs {needed_bytes} bytes, {left_bytes} are left for what has a limit; \
         hint: the host attaches a larger scratch disk"
    )]
    NoRoom {
        /// Whose files they would be.
        owner: String,
        /// What it needs, with what its file system needs.
        needed_bytes: u64,
        /// What is left.
        left_bytes: u64,
    },
    /// The thread that opened the disk died.
    #[error("scratch disk: its thread ended early")]
    Thread,
}

impl From<SysError> for ScratchError {
    fn from(error: SysError) -> Self {
        Self::Kernel(error)
    }
}

impl ScratchError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
