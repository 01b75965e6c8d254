//! Files that nobody but their owner may read: made so, and refused when found otherwise.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Mode bits of group and others.
const OTHERS: u32 = 0o077;

/// Why a file or folder cannot hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be made, opened, read or written.
    #[error("{path} cannot be {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error(
        "{path} has mode {found:04o}, expected {expected:04o}: others on this machine could read it\nhint: chmod {expected:o} {path}"
    )]
    Mode {
        /// Where.
        path: PathBuf,
        /// Mode found.
        found: u32,
        /// Mode expected.
        expected: u32,
    },
    /// Somebody else owns it.
    #[error(
        "{path} belongs to user {found}, expected {expected}\nhint: choose a folder of your own"
    )]
    Owner {
        /// Where.
        path: PathBuf,
        /// Its owner's user id.
        found: u32,
        /// This process's user id.
        expected: u32,
    },
    /// A link, a device, or a file with a second name, where a plain one is needed.
    #[error("{path} is not a plain {expected}\nhint: move it away, or choose another folder")]
    Kind {
        /// Where.
        path: PathBuf,
        /// What is needed.
        expected: &'static str,
    },
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Makes `path` as a folder of mode 0700, or checks the one that is there.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(FileError::io("made", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(FileError::io("made", path)(error));
        }
        _ => {}
    }
    let found = std::fs::symlink_metadata(path).map_err(FileError::io("read", path))?;
    match found.is_dir() {
        true => check(path, &found, 0o700),
        false => Err(FileError::Kind { path: path.to_owned(), expected: "folder" }),
    }
}

/// How a private file is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; it has to be there.
    Read,
    /// For adding at its end; made if missing.
    Append,
    /// For writing; it must not be there.
    New,
}

/// Opens a file of mode 0600. What is checked is what was opened: links are not followed.
pub fn private_file(path: &Path, how: Open) -> Result<File, FileError> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(i32::try_from(flags).unwrap_or_default());
    let (options, action) = match how {
        Open::Read => (options.read(true), "opened"),
        Open::Append => (options.append(true).create(true), "opened"),
        Open::New => (options.write(true).create_new(true), "made"),
    };
    let file =
        options.open(path).map_err(|source| match rustix::io::Errno::from_io_error(&source) {
            Some(rustix::io::Errno::LOOP) => {
                FileError::Kind { path: path.to_owned(), expected: "file" }
            }
            _ => FileError::io(action, path)(source),
        })?;
    let found = file.metadata().map_err(FileError::io("read", path))?;
    match found.is_file() && found.nlink() == 1 {
        true => check(path, &found, 0o600).map(|()| file),
        false => Err(FileError::Kind { path: path.to_owned(), expected: "file" }),
    }
}

fn check(path: &Path, found: &Metadata, expected: u32) -> Result<(), FileError> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Err(FileError::Owner { path: path.to_owned(), found: found.uid(), expected: user });
    }
    match found.mode() & OTHERS {
        0 => Ok(()),
        _ => Err(FileError::Mode { path: path.to_owned(), found: found.mode() & 0o7777, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_is_made_private_and_a_wide_one_refused() {
        let top = dir();
        let path = top.path().join("a/keys");
        private_dir(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        private_dir(&path).unwrap();
        chmod(&path, 0o710);
        let error = private_dir(&path).unwrap_err();
        assert!(matches!(error, FileError::Mode { found: 0o710, expected: 0o700, .. }));
        assert!(error.to_string().contains("hint: chmod 700 "), "{error}");
    }

    #[test]
    fn a_link_or_a_file_is_no_folder() {
        let top = dir();
        let (real, link, file) = (top.path().join("r"), top.path().join("l"), top.path().join("f"));
        private_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        for path in [link, file] {
            assert!(matches!(private_dir(&path), Err(FileError::Kind { expected: "folder", .. })));
        }
    }

    #[test]
    fn files_are_made_private_and_wide_linked_or_special_ones_refused() {
        let top = dir();
        let path = top.path().join("f");
        drop(private_file(&path, Open::New).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(private_file(&path, Open::Read).is_ok());
        assert!(matches!(private_file(&path, Open::New), Err(FileError::Io { .. })));

        let link = top.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(private_file(&link, Open::Append), Err(FileError::Kind { .. })));
        let second = top.path().join("s");
        std::fs::hard_link(&path, &second).unwrap();
        assert!(matches!(private_file(&path, Open::Read), Err(FileError::Kind { .. })));
        std::fs::remove_file(&second).unwrap();
        let fifo = top.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(matches!(private_file(&fifo, Open::Read), Err(FileError::Kind { .. })));

        for mode in [0o604, 0o640, 0o620] {
            chmod(&path, mode);
            let error = private_file(&path, Open::Read).unwrap_err();
            assert!(matches!(error, FileError::Mode { found, .. } if found == mode));
        }
    }
}
