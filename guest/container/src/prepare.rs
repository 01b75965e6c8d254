//! What is done in a container's root before its first process runs.
//!
//! The root's content is the owner's, but a container that ran before may have written symbolic links into a volume; every path
//! is therefore resolved inside the root by the kernel (`RESOLVE_IN_ROOT`).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

/// Longest /etc/passwd that is read, in bytes; a longer one counts as one without the user.
const MAX_PASSWD_BYTES: u64 = 1 << 20;
/// Home of a user that the image does not name.
const DEFAULT_HOME: &str = "/";

/// Why a root could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The root itself cannot be opened.
    #[error("root cannot be opened")]
    Root(#[source] Errno),
    /// The working directory cannot be made.
    #[error("working directory {path:?} cannot be made")]
    WorkingDirectory {
        /// Its path in the container.
        path: String,
        /// The system call's error.
        #[source]
        source: Errno,
    },
}

fn open_root(root: &Path) -> Result<OwnedFd, PrepareError> {
    openat2(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map_err(PrepareError::Root)
}

/// Makes the working directory and its parents where they are missing, mode 0755, owned by root, as containerd's runtimes do.
///
/// # Errors
/// [`PrepareError`] when the root is missing or a component is not a folder.
pub fn make_working_directory(root: &Path, cwd: &Path) -> Result<(), PrepareError> {
    let failed =
        |source| PrepareError::WorkingDirectory { path: cwd.display().to_string(), source };
    let root = open_root(root)?;
    let mut current = std::path::PathBuf::new();
    for component in cwd.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let parent = open_folder(&root, &current).map_err(failed)?;
        current.push(name);
        match open_folder(&root, &current) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
            }
            Err(other) => return Err(failed(other)),
        }
    }
    Ok(())
}

fn open_folder(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(
        root.as_fd(),
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
}

/// The home of `uid` by the root's own /etc/passwd, `/` when it names none.
///
/// libcontainer would look it up with getpwuid, which in a static binary may load a shared library out of the container.
///
/// # Errors
/// [`PrepareError`] when the root is missing.
pub fn home_directory(root: &Path, uid: u32) -> Result<String, PrepareError> {
    let root = open_root(root)?;
    let file = openat2(
        root.as_fd(),
        "etc/passwd",
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    );
    let mut text = String::new();
    let found = file.ok().and_then(|fd| {
        File::from(fd)
            .take(MAX_PASSWD_BYTES)
            .read_to_string(&mut text)
            .ok()
            .and_then(|_| home_in_passwd(&text, uid))
    });
    Ok(found.unwrap_or_else(|| DEFAULT_HOME.to_owned()))
}

/// passwd(5): name:password:uid:gid:comment:home:shell.
fn home_in_passwd(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found: u32 = fields.nth(2)?.parse().ok()?;
        let home = fields.nth(2)?;
        (found == uid && home.starts_with('/')).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn home_comes_from_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbad\nweb:x:33:33::/var/www:\nrel:x:7:7::home:\n";
        assert_eq!(home_in_passwd(text, 0).as_deref(), Some("/root"));
        assert_eq!(home_in_passwd(text, 33).as_deref(), Some("/var/www"));
        assert_eq!(home_in_passwd(text, 7), None);
        assert_eq!(home_in_passwd(text, 1), None);
    }

    #[test]
    fn working_directory_is_made_inside_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        make_working_directory(&root, Path::new("/srv/app/data")).unwrap();
        assert!(root.join("srv/app/data").is_dir());
        make_working_directory(&root, Path::new("/")).unwrap();
    }

    #[test]
    fn attack_working_directory_through_a_link_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let outside = folder.path().join("outside");
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink("../../outside", root.join("up")).unwrap();
        assert!(make_working_directory(&root, Path::new("/link/made")).is_err());
        assert!(make_working_directory(&root, Path::new("/up/made")).is_err());
        assert!(!outside.join("made").exists());
    }
}
