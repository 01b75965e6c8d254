//! Mounts of a part of a volume (`subPath`): held by its descriptor, so that nobody changes what is mounted.
//!
//! What lies in a volume is the containers', also of one that runs already. It could put a symbolic link in the part's place after
//! the agent looked and before the runtime mounts. So the agent opens the part without following a link, binds what it holds onto
//! a folder of its own, and the container is mounted from there.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ah_agent_api::oci;
use ah_container::ContainerId;
use ah_guest_sys::mount;
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fchmod, fchown, fstat, mkdirat, openat2,
};
use rustix::io::Errno;

use super::Guest;
use super::checks::VolumePart;
use crate::failure::Failure;

impl Guest {
    /// Binds each part onto a folder of the agent's and gives the mounts that start from there.
    pub(super) fn hold_parts(
        &self,
        id: &ContainerId,
        spec: &oci::Spec,
        parts: &[VolumePart],
    ) -> Result<oci::Spec, Failure> {
        let mut spec = spec.clone();
        for (number, part) in parts.iter().enumerate() {
            let held = open_part(part)?;
            let target = self.parts_folder(id).join(number.to_string());
            bind(&held, &target).map_err(|e| Failure::effect("mount a part of a volume", &e))?;
            if let Some(mount) = spec.Mounts.get_mut(part.mount) {
                mount.source = target.display().to_string();
            }
        }
        Ok(spec)
    }

    /// Takes away what [`Guest::hold_parts`] has made.
    pub(super) fn release_parts(&self, id: &ContainerId) {
        let folder = self.parts_folder(id);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Only what nothing is mounted on any more is removed: the rest would be the volume's own.
            if mount::detach(&path).is_ok() {
                let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        let _ = fs::remove_dir(folder);
    }

    fn parts_folder(&self, id: &ContainerId) -> PathBuf {
        self.layout.state().join("parts").join(id.as_str())
    }
}

fn bind(held: &OwnedFd, target: &Path) -> std::io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match FileType::from_raw_mode(fstat(held)?.st_mode) {
        FileType::Directory => fs::create_dir(target)?,
        _ => drop(fs::File::create_new(target)?),
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    mount::bind(&source, target).map_err(std::io::Error::other)
}

/// The part, made as folders where it is not there (as the kubelet does), never reached through a link.
fn open_part(part: &VolumePart) -> Result<OwnedFd, Failure> {
    let failed = |e: Errno| match e {
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => Failure::refused(format!(
            "OCI.Mounts: {:?} of volume {:?} leads through something that is no folder",
            part.names.join("/"),
            part.volume
        )),
        e => Failure::effect("open a part of a volume", &std::io::Error::from(e)),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut current = openat2(CWD, &part.volume, flags, Mode::empty(), resolve).map_err(failed)?;
    let root = fstat(&current).map_err(failed)?;
    for name in &part.names {
        current = open_or_make(&current, name, &root).map_err(failed)?;
    }
    let kind = FileType::from_raw_mode(fstat(&current).map_err(failed)?.st_mode);
    match kind {
        FileType::Directory | FileType::RegularFile => Ok(current),
        _ => Err(failed(Errno::NOTDIR)),
    }
}

fn open_or_make(at: &OwnedFd, name: &str, root: &Stat) -> Result<OwnedFd, Errno> {
    let open = |flags| openat2(at, name, flags | OFlags::CLOEXEC, Mode::empty(), beneath());
    match open(OFlags::PATH) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    match mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            // Group and permissions as the volume's own (kubelet, `SafeMakeDir`).
            let made = open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            fchown(&made, None, Some(rustix::fs::Gid::from_raw(root.st_gid)))?;
            fchmod(&made, Mode::from_raw_mode(root.st_mode & 0o7777))?;
        }
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    open(OFlags::PATH)
}

/// No way out, no link, no other file system.
fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn part(volume: &Path, names: &[&str]) -> VolumePart {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        VolumePart { mount: 0, volume: volume.to_owned(), names }
    }

    #[test]
    fn a_part_is_opened_or_made() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        let inode = |held: &OwnedFd| fstat(held).unwrap().st_ino;
        let made = open_part(&part(&volume, &["a", "b"])).unwrap();
        let found = fs::metadata(volume.join("a/b")).unwrap();
        assert_eq!((found.ino(), found.mode() & 0o7777), (inode(&made), 0o777));
        fs::write(volume.join("a/file"), b"x").unwrap();
        let file = open_part(&part(&volume, &["a", "file"])).unwrap();
        assert_eq!(inode(&file), fs::metadata(volume.join("a/file")).unwrap().ino());
    }

    #[test]
    fn attack_part_of_a_volume_that_leads_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        let outside = folder.path().join("outside");
        fs::create_dir_all(volume.join("fine")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        symlink("../outside", volume.join("up")).unwrap();
        symlink("fine", volume.join("inside")).unwrap();
        open_part(&part(&volume, &["fine"])).unwrap();
        for names in [
            &["link"][..],
            &["link", "made"],
            &["up"],
            &["up", "made"],
            &["inside"],
            &["inside", "made"],
            &["..", "outside"],
        ] {
            let found = open_part(&part(&volume, names));
            assert!(matches!(found, Err(Failure::Denied { .. })), "{names:?}: {found:?}");
        }
        assert!(!outside.join("made").exists());
        assert!(open_part(&part(&volume, &["fine", "x\0y"])).is_err());
    }

    #[test]
    fn attack_part_that_is_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let found = open_part(&part(folder.path(), &["s"]));
        assert!(matches!(found, Err(Failure::Denied { .. })), "{found:?}");
    }
}
