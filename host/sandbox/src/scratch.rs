//! The disk for what containers write: a file without a name, sparse, gone with the processes that have it open.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use ah_vmm::Disk;

use crate::SandboxError;

/// Serial of the disk.
const SERIAL: &str = "scratch";
/// Largest disk: what the guest takes (guest/scratch).
const MAX_BYTES: u64 = 4 << 40;
/// A size that is no more than a promise: sectors of 512 bytes, and blocks of 4 KiB of the guest.
const STEP_BYTES: u64 = 4096;

/// Where the disk is and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchConfig {
    /// A folder on a disk of the host; the guest encrypts what gets there.
    pub folder: PathBuf,
    /// Bytes for what has no limit of its own: containers' roots and volumes without a limit. Taken only as they are written.
    pub shared_bytes: u64,
    /// Sum of the limits of volumes and of containers' roots, bytes.
    pub limited_bytes: u64,
}

impl ScratchConfig {
    /// The disk's size: the guest gives one half to what is shared and one to what has a limit, takes 1/128 for tags, and its file
    /// systems take about 1/32.
    ///
    /// # Errors
    /// [`SandboxError::Config`]: the pod's limits come to more than a disk may have.
    fn size_bytes(&self) -> Result<u64, SandboxError> {
        let wanted = self.shared_bytes.max(self.limited_bytes);
        let half = wanted.saturating_add(wanted / 16).saturating_add(64 << 20);
        let size = half.saturating_mul(2).checked_next_multiple_of(STEP_BYTES);
        size.filter(|size| *size <= MAX_BYTES).ok_or_else(|| SandboxError::Config {
            detail: format!(
                "scratch disk: found {wanted} bytes for volumes and roots, expected a disk of at most {MAX_BYTES} bytes, half of it for them"
            ),
        })
    }
}

/// The file, held until QEMU has opened it.
pub(crate) struct ScratchFile(File);

impl ScratchFile {
    /// # Errors
    /// The folder has no room for a name, or cannot be written to.
    pub(crate) fn create(config: &ScratchConfig) -> Result<Self, SandboxError> {
        let size_bytes = config.size_bytes()?;
        let io = || SandboxError::io("making the scratch disk");
        std::fs::create_dir_all(&config.folder).map_err(io())?;
        let file = tempfile::tempfile_in(&config.folder).map_err(io())?;
        file.set_len(size_bytes).map_err(io())?;
        Ok(Self(file))
    }

    /// The disk, under the name that another process of this user opens it by.
    pub(crate) fn disk(&self) -> Disk {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        Disk::scratch(path, SERIAL)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_large_takes_nothing_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made");
        let config =
            ScratchConfig { folder: folder.clone(), shared_bytes: 16 << 30, limited_bytes: 1 };
        let scratch = ScratchFile::create(&config).unwrap();
        let found = std::fs::metadata(scratch.disk().path).unwrap();
        assert!(found.len() > 32 << 30 && found.len().is_multiple_of(STEP_BYTES));
        assert!(found.blocks() * 512 < 1 << 20);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
        let more = ScratchConfig { limited_bytes: 20 << 30, ..config };
        assert!(more.size_bytes().unwrap() > 40 << 30);
    }

    #[test]
    fn limits_beyond_every_disk_are_an_error() {
        let check = |shared_bytes, limited_bytes, expect| {
            let config = ScratchConfig { folder: "/d".into(), shared_bytes, limited_bytes };
            assert_eq!(config.size_bytes().is_ok(), expect, "{config:?}");
        };
        check(1 << 40, 1 << 40, true);
        check(1, 2 << 40, false);
        check(1, u64::MAX, false);
        check(u64::MAX, 1, false);
    }
}
