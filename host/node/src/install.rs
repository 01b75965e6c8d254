use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::merge::{Handler, MergeError, Wanted, handlers_of, merge, unmerge, wanted_of};

/// What stands behind the name of the configuration's copy from before.
const BACKUP: &str = ".before-anchorhold";

/// What was done to containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The file, links followed.
    pub config: PathBuf,
    /// Whether it is another than before: containerd is to be restarted then.
    pub changed: bool,
}

/// Why the configuration is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file could not be read or written.
    #[error("{path} not accessible")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The configuration cannot be merged.
    #[error("{path} is left as it is")]
    Merge {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: MergeError,
    },
}

/// Puts what is wanted into containerd's configuration. What was there before is kept beside it, once; the file is replaced
/// whole, so that a reader sees the old or the new one.
///
/// # Errors
/// [`InstallError`]; the file is unchanged then.
pub fn install(config: &Path, wanted: &Wanted) -> Result<Installed, InstallError> {
    let Merged { config, current, original, merged } = merged(config, wanted)?;
    let backup = backup_of(&config);
    if merged == current {
        return Ok(Installed { config, changed: false });
    }
    if !backup.exists() {
        replace(&backup, &original, &config)?;
    }
    replace(&config, &merged, &config)?;
    Ok(Installed { config, changed: true })
}

/// Whether [`install`] would find something that it refuses. Writes nothing.
///
/// # Errors
/// [`InstallError`].
pub fn check(config: &Path, wanted: &Wanted) -> Result<(), InstallError> {
    merged(config, wanted).map(drop)
}

struct Merged {
    config: PathBuf,
    current: String,
    original: String,
    merged: String,
}

fn merged(config: &Path, wanted: &Wanted) -> Result<Merged, InstallError> {
    let config = resolved(config);
    let current = read(&config)?;
    let backup = backup_of(&config);
    let original = if backup.exists() { read(&backup)? } else { current.clone() };
    let merged = (|| {
        // What an earlier installation put in is not what was there before.
        merge(&without(&current, &original)?, wanted)
    })();
    let merged = merged.map_err(in_file(&config))?;
    Ok(Merged { config, current, original, merged })
}

/// The runtime handlers of ours that a configuration has.
///
/// # Errors
/// [`InstallError::File`] when it is there and cannot be read.
pub fn installed(config: &Path) -> Result<Vec<Handler>, InstallError> {
    Ok(handlers_of(&read(&resolved(config))?))
}

/// Takes out what [`install`] put in. A configuration that nobody has changed since becomes, byte for byte, what it was.
///
/// # Errors
/// [`InstallError`]; the file is unchanged then.
pub fn uninstall(config: &Path) -> Result<Installed, InstallError> {
    let config = resolved(config);
    let backup = backup_of(&config);
    if !backup.exists() {
        return Ok(Installed { config, changed: false });
    }
    let (current, original) = (read(&config)?, read(&backup)?);
    let text = without(&current, &original).map_err(in_file(&config))?;
    if text.is_empty() {
        // There was no file, or one that said nothing.
        remove(&config)?;
    } else if text != current {
        replace(&config, &text, &config)?;
    }
    remove(&backup)?;
    Ok(Installed { config, changed: text != current })
}

/// What the configuration is without us: the original itself where nobody has changed anything since.
fn without(current: &str, original: &str) -> Result<String, MergeError> {
    let untouched = wanted_of(current)
        .is_some_and(|wanted| merge(original, &wanted).is_ok_and(|merged| merged == current));
    if untouched || current == original {
        return Ok(original.to_owned());
    }
    unmerge(current, original)
}

/// Configurations are links on some systems; the file behind one is replaced, not the link.
fn resolved(config: &Path) -> PathBuf {
    fs::canonicalize(config).unwrap_or_else(|_| config.to_owned())
}

fn backup_of(config: &Path) -> PathBuf {
    let mut name: OsString = config.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

/// A file that is not there has nothing in it, as for containerd.
pub(crate) fn read(path: &Path) -> Result<String, InstallError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(at(path)),
    }
}

/// Replaces a file whole, with the permissions of `like` where that is there.
pub(crate) fn replace(path: &Path, text: &str, like: &Path) -> Result<(), InstallError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        if let Ok(metadata) = fs::metadata(like) {
            file.as_file().set_permissions(metadata.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(at(path))
}

pub(crate) fn remove(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> InstallError + '_ {
    |source| InstallError::File { path: path.to_owned(), source }
}

fn in_file(path: &Path) -> impl Fn(MergeError) -> InstallError + '_ {
    |source| InstallError::Merge { path: path.to_owned(), source }
}
