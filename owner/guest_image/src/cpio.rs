//! A newc archive with nothing in it that depends on when, where or by whom it was made.
//!
//! Each entry (Linux Documentation/driver-api/early-userspace/buffer-format.rst): `070701`, 13 fields of 8 hex digits (ino, mode, uid, gid, nlink,
//! mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize with NUL, check = 0), name, NUL, padding to 4, data, padding to 4.

use std::collections::BTreeMap;

use crate::ImageError;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

/// Collects entries; they come out sorted by name, folders made as needed.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Archive {
    /// Adds a file at `path` (no leading slash), executable or not, with all folders above it.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, bytes: Vec<u8>) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entries.insert(path.to_owned(), (FILE | permissions, bytes));
    }

    /// Adds a folder and all folders above it.
    pub(crate) fn folder(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entries.insert(path[..at].to_owned(), (FOLDER | 0o755, Vec::new()));
        }
    }

    /// The archive's bytes.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        for (index, (name, (mode, data))) in (1..).zip(self.entries) {
            entry(&mut bytes, index, mode, &name, &data)?;
        }
        entry(&mut bytes, 0, 0, TRAILER, &[])?;
        // The kernel takes the archive's end to be at a multiple of 4; QEMU hands over whole files. 512 is what cpio(1) pads to.
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Ok(bytes)
    }
}

fn entry(
    bytes: &mut Vec<u8>,
    index: u32,
    mode: u32,
    name: &str,
    data: &[u8],
) -> Result<(), ImageError> {
    let too_large = |_| ImageError::TooLarge { name: name.to_owned(), found: data.len() };
    let size = u32::try_from(data.len()).map_err(too_large)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
    let links = if mode & FOLDER != 0 { 2 } else { 1 };
    bytes.extend(b"070701");
    for field in [index, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn sample(reversed: bool) -> Vec<u8> {
        let mut files =
            vec![("init", 0o755, b"one".to_vec()), ("lib/a/b", 0o644, b"four".to_vec())];
        if reversed {
            files.reverse();
        }
        let mut archive = Archive::default();
        for (name, mode, bytes) in files {
            archive.file(name, mode, bytes);
        }
        archive.folder("proc");
        archive.finish().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_the_order_of_adding_and_are_pinned() {
        assert_eq!(sample(false), sample(true));
        assert_eq!(
            ah_digest::Sha256::of(sample(false)).to_string(),
            "cdec0dd4f661ca46de6230c8896a579d52c0cb0f40b21a641311470516df6dcc"
        );
    }

    #[test]
    fn cpio_reads_what_was_written() {
        let mut cpio = Command::new("cpio")
            .args(["-t", "-v", "--quiet", "--numeric-uid-gid"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&sample(false)).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let names: Vec<&str> =
            listing.lines().filter_map(|l| l.split_whitespace().last()).collect();
        assert_eq!(names, ["init", "lib", "lib/a", "lib/a/b", "proc"]);
        assert!(
            listing.lines().all(|line| line.contains(" 0        0 ") && line.contains("1970")),
            "{listing}"
        );
    }
}
