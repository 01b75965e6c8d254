//! The termination message: the one file of a container that its owner may let the host read back.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ah_agent_api::oci;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// Longest message, bytes: the kubelet's own limit (`MaxContainerTerminationMessageLength`).
pub(super) const MAX_MESSAGE_BYTES: u64 = 4096;

/// Files that were copied in for a container, by the path at which the container sees each.
pub(super) fn copied_files(spec: &oci::Spec, shared: &Path) -> BTreeMap<String, PathBuf> {
    let copied = |mount: &&oci::Mount| Path::new(&mount.source).parent() == Some(shared);
    let mounts = spec.Mounts.iter().filter(copied);
    mounts.map(|m| (m.destination.clone(), PathBuf::from(&m.source))).collect()
}

/// The end of what the container wrote. It can write what it likes, but not put another file in this one's place: it has the file
/// alone, by a bind mount.
pub(super) fn read_message(file: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened: OwnedFd = openat2(CWD, file, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let mut opened = std::fs::File::from(opened);
    let found = opened.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    opened.seek(SeekFrom::Start(found.len().saturating_sub(MAX_MESSAGE_BYTES)))?;
    let mut bytes = Vec::new();
    opened.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_last_bytes_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("message");
        std::fs::write(&file, "done: 3 rows").unwrap();
        assert_eq!(read_message(&file).unwrap(), "done: 3 rows");
        std::fs::write(&file, format!("{}end", "x".repeat(9000))).unwrap();
        let message = read_message(&file).unwrap();
        assert!(message.len() == 4096 && message.ends_with("xend"));
        std::fs::write(&file, b"\xffok").unwrap();
        assert_eq!(read_message(&file).unwrap(), "\u{fffd}ok");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [link.as_path(), folder.path(), &folder.path().join("none")] {
            assert!(read_message(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn attack_only_files_that_were_copied_in_for_the_container_are_known() {
        let mount = |source: &str, destination: &str| oci::Mount {
            source: source.into(),
            destination: destination.into(),
            ..Default::default()
        };
        let spec = oci::Spec {
            Mounts: vec![
                mount("/shared/c-1-termination-log", "/dev/termination-log"),
                mount("/shared/c-2-config/key", "/etc/config"),
                mount("/etc/shadow", "/shadow"),
                mount("/shared/../etc/shadow", "/other"),
            ],
            ..Default::default()
        };
        let files = copied_files(&spec, Path::new("/shared"));
        assert_eq!(files.keys().collect::<Vec<_>>(), ["/dev/termination-log"]);
    }
}
