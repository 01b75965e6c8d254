//! The folder of the software TEE: everything of one root in one sub-folder that appears at once or not at all.
//!
//! | file | content |
//! |---|---|
//! | `v1/ark.der`, `v1/ask.der`, `v1/vcek.der` | certificates |
//! | `v1/vcek.pk8` | the VCEK's private key, PKCS#8 DER |
//!
//! The private keys of root and intermediate are never written.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::SoftwareTeeError;

const CURRENT: &str = "v1";
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Permission bits of group and others.
const OTHERS_ANY: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// What the folder holds.
pub(crate) struct Stored {
    pub(crate) ark: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) vcek: Vec<u8>,
    pub(crate) vcek_key: Vec<u8>,
}

/// Reads what is stored; None if nothing is.
pub(crate) fn load(dir: &Path) -> Result<Option<Stored>, SoftwareTeeError> {
    let current = dir.join(CURRENT);
    match fs::symlink_metadata(&current) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SoftwareTeeError::io("read", &current, error)),
        Ok(_) => {}
    }
    check_closed(dir, OTHERS_WRITE)?;
    check_closed(&current, OTHERS_ANY)?;
    let key = current.join("vcek.pk8");
    check_closed(&key, OTHERS_ANY)?;
    Ok(Some(Stored {
        ark: read(&current.join("ark.der"))?,
        ask: read(&current.join("ask.der"))?,
        vcek: read(&current.join("vcek.der"))?,
        vcek_key: read(&key)?,
    }))
}

/// Makes the folder; an existing one may be readable for others, but not writable.
pub(crate) fn prepare(dir: &Path) -> Result<(), SoftwareTeeError> {
    make_dir(dir)?;
    check_closed(dir, OTHERS_WRITE)
}

/// Stores `new`, unless another process was faster; returns what is stored then.
pub(crate) fn store(dir: &Path, new: &Stored) -> Result<Stored, SoftwareTeeError> {
    let temporary = dir.join(format!(".new-{}-{}", std::process::id(), random_suffix()?));
    write_all(&temporary, new)?;
    let current = dir.join(CURRENT);
    // Renaming a folder over one that is not empty fails, so exactly one of several processes wins.
    if let Err(error) = fs::rename(&temporary, &current) {
        let _ = fs::remove_dir_all(&temporary);
        if !current.exists() {
            return Err(SoftwareTeeError::io("make", &current, error));
        }
    }
    load(dir)?.ok_or(SoftwareTeeError::Damaged { path: current, what: "it vanished" })
}

fn make_dir(dir: &Path) -> Result<(), SoftwareTeeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| SoftwareTeeError::io("make", dir, error))
}

fn write_all(folder: &Path, new: &Stored) -> Result<(), SoftwareTeeError> {
    make_dir(folder)?;
    let files = [
        ("ark.der", &new.ark),
        ("ask.der", &new.ask),
        ("vcek.der", &new.vcek),
        ("vcek.pk8", &new.vcek_key),
    ];
    for (name, bytes) in files {
        let path = folder.join(name);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| SoftwareTeeError::io("write", &path, error))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, SoftwareTeeError> {
    let read = || {
        let file = fs::File::open(path)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_BYTES), &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| SoftwareTeeError::io("read", path, error))
}

fn check_closed(path: &Path, forbidden: u32) -> Result<(), SoftwareTeeError> {
    let metadata =
        fs::symlink_metadata(path).map_err(|error| SoftwareTeeError::io("read", path, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    match mode & forbidden {
        0 => Ok(()),
        _ => Err(SoftwareTeeError::Permissions { path: PathBuf::from(path), mode, forbidden }),
    }
}

fn random_suffix() -> Result<String, SoftwareTeeError> {
    let number = getrandom::u64().map_err(SoftwareTeeError::Randomness)?;
    Ok(format!("{number:016x}"))
}
