//! `/etc/passwd` and `/etc/group` of the merged layers, looked up as overlayfs would show them.

use ah_erofs::{FileKind, Image, Inode, ReadAt, ReadError};
use ah_pod::Accounts;

/// Longest account file, bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most symbolic links followed for one path (Linux, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// What overlayfs reads as "nothing below" (Linux, filesystems/overlayfs).
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Why the files are not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountsError {
    /// A layer's image is broken.
    #[error("layer is not readable")]
    Read(#[from] ReadError),
    /// Links lead in a circle.
    #[error("{path} has more than {MAX_LINKS} symbolic links on its way")]
    Links {
        /// The path.
        path: &'static str,
    },
    /// Something else than a file is there.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: &'static str,
    },
}

/// The accounts of an image, from its layers, bottom first.
pub(crate) fn read<R: ReadAt>(layers: &[Image<R>]) -> Result<Accounts, AccountsError> {
    let merged = Merged(layers);
    let (passwd, group) = (merged.text("/etc/passwd")?, merged.text("/etc/group")?);
    Ok(Accounts::parse(passwd.as_deref(), group.as_deref()))
}

struct Merged<'a, R>(&'a [Image<R>]);

/// A directory as it is seen: the directories of the layers that make it up, top first.
type Directory = Vec<(usize, Inode)>;

enum Found {
    Directory(Directory),
    Other(usize, Inode),
}

impl<R: ReadAt> Merged<'_, R> {
    fn text(&self, path: &'static str) -> Result<Option<String>, AccountsError> {
        let Some((layer, inode)) = self.resolve(path)? else { return Ok(None) };
        if inode.kind != FileKind::File {
            return Err(AccountsError::NotAFile { path });
        }
        match self.0.get(layer) {
            Some(image) => {
                let bytes = image.read_file(&inode, MAX_FILE_BYTES)?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            None => Ok(None),
        }
    }

    /// Walks the path inside the image, links followed within it.
    fn resolve(&self, path: &'static str) -> Result<Option<(usize, Inode)>, AccountsError> {
        let mut open = vec![self.root()?];
        let mut steps: Vec<Vec<u8>> = parts(path.as_bytes());
        let mut links = 0;
        while let Some(step) = steps.pop() {
            if step == b".." {
                if open.len() > 1 {
                    open.pop();
                }
                continue;
            }
            let Some(directory) = open.last() else { return Ok(None) };
            match self.lookup(directory, &step)? {
                None => return Ok(None),
                Some(Found::Directory(next)) => open.push(next),
                Some(Found::Other(layer, inode)) if inode.kind == FileKind::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(AccountsError::Links { path });
                    }
                    let Some(image) = self.0.get(layer) else { return Ok(None) };
                    let target = image.read_link(&inode)?;
                    if target.starts_with(b"/") {
                        open.truncate(1);
                    }
                    steps.extend(parts(&target));
                }
                Some(Found::Other(layer, inode)) => {
                    return Ok(steps.is_empty().then_some((layer, inode)));
                }
            }
        }
        match open.last().and_then(|directory| directory.first()) {
            Some(_) => Err(AccountsError::NotAFile { path }),
            None => Ok(None),
        }
    }

    fn root(&self) -> Result<Directory, AccountsError> {
        let layers = self.0.iter().enumerate().rev();
        Ok(layers
            .map(|(index, image)| Ok((index, image.root()?)))
            .collect::<Result<_, ReadError>>()?)
    }

    /// What a name is in a merged directory: the top layer that has it decides; directories merge
    /// down to one that is opaque, to a whiteout, or to something else of that name.
    fn lookup(&self, directory: &Directory, name: &[u8]) -> Result<Option<Found>, AccountsError> {
        let mut merged = Directory::new();
        for (layer, inode) in directory {
            let Some(image) = self.0.get(*layer) else { continue };
            let entries = image.read_dir(inode)?;
            let Ok(at) = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)) else {
                continue;
            };
            let Some(entry) = entries.get(at) else { continue };
            let found = image.inode(entry.nid)?;
            match found.kind {
                FileKind::CharDevice { major: 0, minor: 0 } => break,
                FileKind::Directory => {
                    let opaque = found.meta.xattrs.contains_key(OPAQUE);
                    merged.push((*layer, found));
                    if opaque {
                        break;
                    }
                }
                _ if merged.is_empty() => return Ok(Some(Found::Other(*layer, found))),
                _ => break,
            }
        }
        Ok((!merged.is_empty()).then_some(Found::Directory(merged)))
    }
}

/// The components of a path, last one first, so that `pop` gives the next.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ah_digest::Sha256;
    use ah_oci::LayerMediaType;
    use ah_testkit_images::{Entry, TarBuilder};

    use super::*;

    fn layer(entries: &[Entry]) -> Image<File> {
        let tar = TarBuilder::bytes(entries.iter().cloned());
        let file = tempfile::tempfile().unwrap();
        let diff_id = Sha256::of(&tar);
        ah_convert::convert_layer(&tar[..], LayerMediaType::Tar, &diff_id, &file).unwrap();
        Image::open(file).unwrap()
    }

    /// The names in the merged `/etc/passwd`; `None` when there is no such file.
    fn check(layers: &[&[Entry]], expect: Option<&[&str]>) {
        let layers: Vec<_> = layers.iter().map(|entries| layer(entries)).collect();
        let found = read(&layers).unwrap().passwd;
        let names: Option<Vec<String>> =
            found.map(|entries| entries.into_iter().map(|entry| entry.name).collect());
        let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names, expect);
    }

    fn file(path: &str, text: &str) -> Entry {
        Entry::file(path, text)
    }

    #[test]
    fn the_top_layer_wins() {
        let low = [file("etc/passwd", "low:x:1:1\n"), file("etc/group", "g:x:1:\n")];
        check(&[&low], Some(&["low"]));
        check(&[&low, &[file("etc/passwd", "top:x:1:1\n")]], Some(&["top"]));
        check(&[&low, &[file("etc/other", "")]], Some(&["low"]));
        check(&[&[file("bin/x", "")]], None);
    }

    #[test]
    fn whiteouts_and_opaque_folders_hide_what_is_below() {
        let low = [file("etc/passwd", "low:x:1:1\n")];
        check(&[&low, &[file("etc/.wh.passwd", "")]], None);
        check(&[&low, &[file(".wh.etc", "")]], None);
        check(&[&low, &[Entry::dir("etc"), file("etc/.wh..wh..opq", "")]], None);
        check(
            &[&low, &[file("etc/.wh.passwd", "")], &[file("etc/passwd", "new:x:1:1\n")]],
            Some(&["new"]),
        );
        check(&[&low, &[file("etc", "a file")]], None);
        check(&[&low, &[file("etc", "a file")], &[Entry::dir("etc")]], None);
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let store = [file("nix/passwd", "nix:x:1:1\n")];
        check(&[&store, &[Entry::symlink("etc/passwd", "../nix/passwd")]], Some(&["nix"]));
        check(&[&store, &[Entry::symlink("etc/passwd", "/nix/passwd")]], Some(&["nix"]));
        check(&[&store, &[Entry::symlink("etc", "nix")]], Some(&["nix"]));
        check(&[&store, &[Entry::symlink("etc/passwd", "../../../../nix/passwd")]], Some(&["nix"]));
        check(&[&store, &[Entry::symlink("etc/passwd", "gone")]], None);
    }

    #[test]
    fn attack_a_link_in_a_circle_and_a_folder_for_a_file() {
        let circle = [layer(&[Entry::symlink("etc/passwd", "passwd")])];
        assert!(matches!(read(&circle), Err(AccountsError::Links { .. })));
        let folder = [layer(&[Entry::dir("etc/passwd")])];
        assert!(matches!(read(&folder), Err(AccountsError::NotAFile { .. })));
    }
}
