//! The private folder of one VM: its sockets, nothing else, gone when the VM is.

use std::{
    env, fs,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use crate::VmError;

/// sun_path has 108 bytes with the final zero (unix(7)).
const SUN_PATH_MAX_BYTES: usize = 107;
/// Longest name that is made in the folder: the bridge's socket for the greatest vsock port.
const LONGEST_NAME: &str = "v_4294967295";
const PREFIX: &str = "anchorhold-";
const LOCK: &str = "lock";
const ATTEMPTS: u32 = 16;

/// A folder with mode 0700 that is removed when the value is dropped, by the VM's supervisor when the
/// launcher dies first, and by the next [`RunDir::create`] when both were killed.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes one under `XDG_RUNTIME_DIR`, or the folder for temporary files where that is not set.
    ///
    /// # Errors
    /// [`VmError::SocketPath`] when socket names would not fit the kernel's limit, [`VmError::Io`] when the
    /// folder cannot be made.
    pub fn create() -> Result<Self, VmError> {
        let base = env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_dir())
            .unwrap_or_else(env::temp_dir);
        Self::create_in(&base)
    }

    /// Makes one under this folder, and removes those there that belong to this user and that no process
    /// holds any more.
    ///
    /// # Errors
    /// As [`RunDir::create`].
    pub fn create_in(base: &Path) -> Result<Self, VmError> {
        remove_abandoned(base);
        for _ in 0..ATTEMPTS {
            let path = base.join(format!("{PREFIX}{}", random_name()?));
            check_length(&path)?;
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(VmError::io(format!("making {}", path.display()))(error)),
            }
            let lock = hold(&path).map_err(VmError::io(format!("locking {}", path.display())))?;
            return Ok(Self { path, _lock: lock });
        }
        Err(VmError::io("making a run folder")(io::ErrorKind::AlreadyExists.into()))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Gone already when the supervisor was quicker.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Marks the folder as in use for as long as the returned file is open.
pub(crate) fn hold(path: &Path) -> io::Result<File> {
    let lock = File::options().write(true).create(true).truncate(false).open(path.join(LOCK))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)?;
    Ok(lock)
}

fn check_length(path: &Path) -> Result<(), VmError> {
    let longest = path.join(LONGEST_NAME);
    let found = longest.as_os_str().len();
    match found <= SUN_PATH_MAX_BYTES {
        true => Ok(()),
        false => Err(VmError::SocketPath { path: longest, found, limit: SUN_PATH_MAX_BYTES }),
    }
}

fn random_name() -> Result<String, VmError> {
    let mut bytes = [0u8; 4];
    io::Read::read_exact(
        &mut File::open("/dev/urandom").map_err(VmError::io("opening /dev/urandom"))?,
        &mut bytes,
    )
    .map_err(VmError::io("reading /dev/urandom"))?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

/// Another process may be between making its folder and locking it: a folder without a lock file is left
/// alone for that reason.
fn remove_abandoned(base: &Path) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_run_name);
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if !ours || !metadata.is_dir() || metadata.uid() != user {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_run_name(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_and_gone_with_its_owner() {
        let base = tempfile::tempdir().unwrap();
        let dir = RunDir::create_in(base.path()).unwrap();
        assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let path = dir.path().to_path_buf();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn abandoned_folders_go_and_held_ones_stay() {
        let base = tempfile::tempdir().unwrap();
        let held = RunDir::create_in(base.path()).unwrap();
        let abandoned = base.path().join("anchorhold-0123abcd");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(LOCK), "").unwrap();
        let other = base.path().join("anchorhold-something");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        let _second = RunDir::create_in(base.path()).unwrap();
        assert!(held.path().exists() && other.exists() && !abandoned.exists());
    }

    #[test]
    fn a_base_that_is_too_deep_is_refused_by_its_length() {
        let base = tempfile::tempdir().unwrap();
        let room = SUN_PATH_MAX_BYTES - base.path().as_os_str().len();
        let deep = |extra: usize| {
            let fixed = "//".len() + PREFIX.len() + 8 + "/".len() + LONGEST_NAME.len();
            let path = base.path().join("d".repeat(room - fixed + extra));
            fs::create_dir(&path).unwrap();
            RunDir::create_in(&path).map(drop)
        };
        assert!(deep(0).is_ok());
        assert!(matches!(deep(1), Err(VmError::SocketPath { found: 108, limit: 107, .. })));
    }
}
