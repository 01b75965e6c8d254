//! `/etc/passwd` and `/etc/group` of the merged layers, looked up as overlayfs would show them.

use ah_erofs::ReadError;
use ah_pod::Accounts;

use crate::view::{Directory as One, File, Found as InLayer, View};

/// Most symbolic links followed for one path (Linux, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

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
    /// The way leads to files that were not kept when the layer streamed by: whole images are needed.
    #[error("layer was not kept whole")]
    NotKept,
}

/// The accounts of an image, from its layers, bottom first.
pub(crate) fn read(layers: &[View]) -> Result<Accounts, AccountsError> {
    let merged = Merged(layers);
    let (passwd, group) = (merged.text("/etc/passwd")?, merged.text("/etc/group")?);
    Ok(Accounts::parse(passwd.as_deref(), group.as_deref()))
}

struct Merged<'a>(&'a [View]);

/// A directory as it is seen: the directories of the layers that make it up, top first.
type Directory = Vec<(usize, One)>;

enum Found {
    Directory(Directory),
    Symlink(Vec<u8>),
    File(usize, File),
    Other,
}

impl Merged<'_> {
    fn text(&self, path: &'static str) -> Result<Option<String>, AccountsError> {
        let Some((layer, file)) = self.resolve(path)? else { return Ok(None) };
        let Some(view) = self.0.get(layer) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&view.read(&file)?).into_owned()))
    }

    /// Walks the path inside the image, links followed within it.
    fn resolve(&self, path: &'static str) -> Result<Option<(usize, File)>, AccountsError> {
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
                Some(Found::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(AccountsError::Links { path });
                    }
                    if target.starts_with(b"/") {
                        open.truncate(1);
                    }
                    steps.extend(parts(&target));
                }
                Some(Found::File(..) | Found::Other) if !steps.is_empty() => return Ok(None),
                Some(Found::File(layer, file)) => return Ok(Some((layer, file))),
                Some(Found::Other) => return Err(AccountsError::NotAFile { path }),
            }
        }
        match open.last().and_then(|directory| directory.first()) {
            Some(_) => Err(AccountsError::NotAFile { path }),
            None => Ok(None),
        }
    }

    fn root(&self) -> Result<Directory, AccountsError> {
        let layers = self.0.iter().enumerate().rev();
        layers.map(|(index, view)| Ok((index, view.root()?))).collect()
    }

    /// What a name is in a merged directory: the top layer that has it decides; directories merge
    /// down to one that is opaque, to a whiteout, or to something else of that name.
    fn lookup(&self, directory: &Directory, name: &[u8]) -> Result<Option<Found>, AccountsError> {
        let mut merged = Directory::new();
        for (layer, one) in directory {
            let Some(view) = self.0.get(*layer) else { continue };
            match view.lookup(one, name)? {
                None => {}
                Some(InLayer::Whiteout) => break,
                Some(InLayer::Directory { directory, opaque }) => {
                    merged.push((*layer, directory));
                    if opaque {
                        break;
                    }
                }
                Some(_) if !merged.is_empty() => break,
                Some(InLayer::Symlink(target)) => return Ok(Some(Found::Symlink(target))),
                Some(InLayer::File(file)) => return Ok(Some(Found::File(*layer, file))),
                Some(InLayer::Other) => return Ok(Some(Found::Other)),
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
    use ah_digest::Sha256;
    use ah_oci::LayerMediaType;
    use ah_testkit_images::{Entry, TarBuilder};

    use super::*;
    use crate::convert::{KeptFiles, LayerFiles};

    fn layer(entries: &[Entry]) -> View {
        let tar = TarBuilder::bytes(entries.iter().cloned());
        let file = tempfile::tempfile().unwrap();
        let diff_id = Sha256::of(&tar);
        ah_convert::convert_layer(&tar[..], LayerMediaType::Tar, &diff_id, &file).unwrap();
        View::open(LayerFiles::Image(file)).unwrap()
    }

    /// The same layer as it is known when nothing but the account files was kept of it.
    fn kept(entries: &[Entry]) -> View {
        let tar = TarBuilder::bytes(entries.iter().cloned());
        let diff_id = Sha256::of(&tar);
        let (_, kept) =
            KeptFiles::while_converting(&tar[..], LayerMediaType::Tar, &diff_id).unwrap();
        View::open(LayerFiles::Kept(kept)).unwrap()
    }

    /// The names in the merged `/etc/passwd`; `None` when there is no such file.
    fn check(layers: &[&[Entry]], expect: Option<&[&str]>) {
        let images: Vec<_> = layers.iter().map(|entries| layer(entries)).collect();
        let expect =
            expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(read(&images).unwrap()), expect);
        let kept: Vec<_> = layers.iter().map(|entries| kept(entries)).collect();
        match read(&kept) {
            Ok(found) => assert_eq!(names(found), expect),
            // links lead elsewhere, which only whole images tell
            Err(error) => assert!(matches!(error, AccountsError::NotKept), "{error:?}"),
        }
    }

    fn names(found: Accounts) -> Option<Vec<String>> {
        found.passwd.map(|entries| entries.into_iter().map(|entry| entry.name).collect())
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
    fn kept_files_answer_what_they_can_and_no_more() {
        let low = [file("etc/passwd", "low:x:1:1\n"), file("etc/group", "g:x:1:\n")];
        let whiteout = [file("etc/.wh.passwd", "")];
        assert_eq!(names(read(&[kept(&low)]).unwrap()), Some(vec!["low".into()]));
        assert_eq!(names(read(&[kept(&low), kept(&whiteout)]).unwrap()), None);
        let link = [Entry::symlink("etc/passwd", "/nix/passwd"), file("nix/passwd", "n:x:1:1\n")];
        assert!(matches!(read(&[kept(&link)]), Err(AccountsError::NotKept)));
        let hard = [file("base", "h:x:1:1\n"), Entry::hard_link("etc/passwd", "base")];
        assert!(matches!(read(&[kept(&hard)]), Err(AccountsError::NotKept)));
        assert_eq!(names(read(&[layer(&hard)]).unwrap()), Some(vec!["h".into()]));
    }

    #[test]
    fn attack_a_link_in_a_circle_and_a_folder_for_a_file() {
        let circle = [layer(&[Entry::symlink("etc/passwd", "passwd")])];
        assert!(matches!(read(&circle), Err(AccountsError::Links { .. })));
        for make in [layer, kept] {
            let folder = [make(&[Entry::dir("etc/passwd")])];
            assert!(matches!(read(&folder), Err(AccountsError::NotAFile { .. })));
        }
    }
}
