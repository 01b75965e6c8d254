//! Reads what the node made for a container: files and volumes to copy in, and the mount table.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::ShimError;
use crate::convert::{HostTree, MountInfo, Node, NodeKind, Spec};

/// Most parts of one volume: the Kubernetes API keeps a ConfigMap's keys under 1 MiB.
const MAX_NODES: usize = 16_384;
/// Longest file that can be copied in: one request holds it.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 16;
const SET_GROUP_ID: u32 = 0o2000;

/// Reads a file, or a folder with all that is in it; links are not followed.
pub(crate) fn tree(source: &Path) -> Result<HostTree, ShimError> {
    let mut tree = HostTree::new();
    add(source, "", 0, &mut tree)?;
    Ok(tree)
}

fn add(path: &Path, name: &str, depth: usize, tree: &mut HostTree) -> Result<(), ShimError> {
    let file = |what: &'static str| ShimError::file(what, path);
    let too_much =
        |what: &str| file("copying into the guest")(std::io::Error::other(what.to_owned()));
    if tree.len() == MAX_NODES || depth == MAX_DEPTH {
        return Err(too_much("found more than 16384 parts or 16 levels"));
    }
    let metadata = fs::symlink_metadata(path).map_err(file("reading"))?;
    let kind = if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(file("reading"))?;
        NodeKind::Link(target.to_string_lossy().into_owned())
    } else if metadata.is_dir() {
        NodeKind::Folder
    } else if metadata.is_file() {
        if metadata.len() > MAX_FILE_BYTES {
            return Err(too_much("found more than 1 MiB"));
        }
        NodeKind::File(fs::read(path).map_err(file("reading"))?)
    } else {
        return Err(too_much("found neither file, folder nor link"));
    };
    let is_folder = kind == NodeKind::Folder;
    let node = Node { mode: metadata.mode(), uid: metadata.uid(), gid: metadata.gid(), kind };
    tree.insert(name.to_owned(), node);
    if is_folder {
        for entry in fs::read_dir(path).map_err(file("reading"))? {
            let entry = entry.map_err(file("reading"))?;
            let below = entry.file_name().to_string_lossy().into_owned();
            let below = if name.is_empty() { below } else { format!("{name}/{below}") };
            add(&entry.path(), &below, depth.saturating_add(1), tree)?;
        }
    }
    Ok(())
}

/// The mount table with the groups of the folders that the container mounts.
pub(crate) fn mount_info(spec: &Spec) -> Result<MountInfo, ShimError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let text = fs::read_to_string(TABLE).map_err(ShimError::file("reading", TABLE))?;
    let mut mounted = MountInfo::parse(&text);
    for source in spec.volume_folders() {
        let Ok(metadata) = fs::metadata(&source) else { continue };
        if metadata.mode() & SET_GROUP_ID != 0 {
            mounted = mounted.with_group(source, metadata.gid());
        }
    }
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_read_whole_and_links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("..1");
        fs::create_dir(&version).unwrap();
        fs::write(version.join("a"), "x").unwrap();
        std::os::unix::fs::symlink("..1", folder.path().join("..data")).unwrap();
        let tree = tree(folder.path()).unwrap();
        let kinds: Vec<_> = tree.iter().map(|(path, node)| (path.as_str(), &node.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("", &NodeKind::Folder),
                ("..1", &NodeKind::Folder),
                ("..1/a", &NodeKind::File(b"x".to_vec())),
                ("..data", &NodeKind::Link("..1".into())),
            ]
        );
    }

    #[test]
    fn what_cannot_be_copied_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        fs::write(&large, vec![0; (1 << 20) + 1]).unwrap();
        assert!(tree(&large).unwrap_err().told().contains("1 MiB"));
        assert!(tree(&folder.path().join("absent")).is_err());
        let socket = folder.path().join("s");
        let _held = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(tree(&socket).unwrap_err().told().contains("neither"));
    }
}
