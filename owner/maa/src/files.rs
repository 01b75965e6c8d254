//! Token keys in a file that nobody but its owner may read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::ring::{SigningKeys, StoreError};

/// Mode bits of group and others.
const OTHERS: u32 = 0o077;
/// Longest document, bytes: 18 RSA keys with certificates take 60 KB.
const MAX_BYTES: u64 = 512 * 1024;

/// A file of mode 0600, replaced by renaming.
#[derive(Debug, Clone)]
pub struct FileKeys {
    path: PathBuf,
}

impl FileKeys {
    /// Keys at `path`; the folder has to be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn failed(&self, action: &str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let what = format!("{} cannot be {action}", self.path.display());
        move |source| StoreError { what, source: Some(source) }
    }

    fn refused(&self, words: &str) -> StoreError {
        StoreError { what: format!("{} {words}", self.path.display()), source: None }
    }

    /// What is checked is what was opened: a link is not followed.
    fn check(&self, file: &File) -> Result<(), StoreError> {
        let found = file.metadata().map_err(self.failed("read"))?;
        let mode = found.mode() & 0o777;
        if !found.is_file() {
            return Err(self.refused("is not a plain file"));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.refused("belongs to another user"));
        }
        if mode & OTHERS != 0 {
            let words = format!(
                "has mode {mode:04o}, expected 0600: others could sign tokens with it\nhint: chmod 600 {}",
                self.path.display()
            );
            return Err(self.refused(&words));
        }
        Ok(())
    }
}

impl SigningKeys for FileKeys {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(i32::try_from(flags).unwrap_or_default());
        let file = match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(self.failed("opened"))?,
        };
        self.check(&file)?;
        let mut document = Zeroizing::new(Vec::new());
        file.take(MAX_BYTES).read_to_end(&mut document).map_err(self.failed("read"))?;
        Ok(Some(document))
    }

    fn write(&self, document: &[u8]) -> Result<(), StoreError> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.map_or_else(|| PathBuf::from("."), PathBuf::from);
        let mut builder = tempfile::Builder::new();
        builder.permissions(Permissions::from_mode(0o600));
        let mut file = builder.tempfile_in(&folder).map_err(self.failed("written"))?;
        file.write_all(document).map_err(self.failed("written"))?;
        file.as_file().sync_all().map_err(self.failed("written"))?;
        file.persist(&self.path).map_err(|error| self.failed("replaced")(error.error))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(self.failed("written"))
    }
}
