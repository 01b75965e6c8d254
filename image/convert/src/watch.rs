//! What a layer has under a few paths that its owner wants to know, taken while the layer streams by.

use ah_oci::{FileTree, NodeKind};

use crate::translate::Content;

/// Longest file that is taken, bytes.
pub const MAX_WATCHED_FILE_BYTES: u64 = 1 << 20;

/// What one layer has under a path. What other layers have is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The layer does not say anything of it.
    Absent,
    /// The layer removes what is below.
    Whiteout,
    /// A directory.
    Directory {
        /// Whether it hides what lower layers have in it.
        opaque: bool,
    },
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A regular file whose bytes were not taken: a hard link to a file of another name, or too long.
    NotTaken,
    /// A device or pipe.
    Other,
}

/// Paths without leading slash, each of them plain: no `.`, no `..`, no empty part.
pub(crate) struct Watch<'a>(pub(crate) &'a [&'a str]);

impl Watch<'_> {
    /// Whether a tar's path is one of them.
    pub(crate) fn wants(&self, path: &[u8]) -> bool {
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        self.0.iter().any(|wanted| {
            wanted.as_bytes().ends_with(last) && parts(path).eq(parts(wanted.as_bytes()))
        })
    }

    /// What the layer's finished tree has under each of them.
    pub(crate) fn seen(&self, tree: &FileTree<Content>) -> Vec<Seen> {
        self.0.iter().map(|path| seen(tree, path)).collect()
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

fn seen(tree: &FileTree<Content>, path: &str) -> Seen {
    let mut at = tree.nodes.first();
    for part in parts(path.as_bytes()) {
        let Some(NodeKind::Directory { entries, .. }) = at.map(|node| &node.kind) else {
            return Seen::Absent;
        };
        at = entries.get(part).and_then(|id| tree.nodes.get(*id));
    }
    match at.map(|node| &node.kind) {
        None => Seen::Absent,
        Some(NodeKind::Whiteout) => Seen::Whiteout,
        Some(NodeKind::Directory { opaque, .. }) => Seen::Directory { opaque: *opaque },
        Some(NodeKind::Symlink(target)) => Seen::Symlink(target.to_vec()),
        Some(NodeKind::File(Content { taken: Some(bytes), .. })) => Seen::File(bytes.to_vec()),
        Some(NodeKind::File(_)) => Seen::NotTaken,
        Some(NodeKind::CharDevice(..) | NodeKind::BlockDevice(..) | NodeKind::Fifo) => Seen::Other,
    }
}
