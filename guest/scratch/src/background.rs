//! The disk is opened beside the sandbox's start, and waited for by the first who needs it.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use crate::{Candidate, ScratchDisk, ScratchError};

type Opened = Result<ScratchDisk, ScratchError>;

/// The guest's scratch disk, if the host attached one.
#[derive(Debug, Default)]
pub struct Scratch {
    opening: Mutex<Option<JoinHandle<Opened>>>,
    opened: OnceLock<Option<Opened>>,
}

impl Scratch {
    /// A guest without such a disk.
    pub fn none() -> Self {
        Self::default()
    }

    /// Starts to open the disk, which will be mounted below `folder`. Everything that was on it is lost.
    pub fn open(disk: Candidate, folder: PathBuf) -> Self {
        let opening = std::thread::spawn(move || ScratchDisk::open(&disk, &folder));
        Self { opening: Mutex::new(Some(opening)), opened: OnceLock::new() }
    }

    /// The disk; `None` where the host attached none. Waits until it is open.
    ///
    /// # Errors
    /// The disk that is there cannot be used. Memory does not take its place: the pod's owner may count on its room.
    pub fn disk(&self) -> Result<Option<&ScratchDisk>, &ScratchError> {
        let wait = || {
            let handle = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Some(handle.join().unwrap_or(Err(ScratchError::Thread)))
        };
        match self.opened.get_or_init(wait) {
            None => Ok(None),
            Some(Ok(disk)) => Ok(Some(disk)),
            Some(Err(error)) => Err(error),
        }
    }
}
