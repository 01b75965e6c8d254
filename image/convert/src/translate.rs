//! A layer's tree as the EROFS tree that overlayfs reads.

use ah_erofs::{FileData, FileShape, ImageWriter, Kind, Meta, Node, Tree, WriteError, xattr_bytes};
use ah_oci::{Attributes, ContentSink, FileTree, NodeKind, Shape, TreeNode};

use crate::output::Pump;

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Hands the files of a layer to the image writer.
pub(crate) struct Files {
    pub(crate) writer: ImageWriter<Pump>,
}

impl ContentSink for Files {
    type Content = FileData;
    type Error = WriteError;

    fn begin(&mut self, shape: Shape<'_>) -> Result<(), WriteError> {
        let xattr_bytes = xattr_bytes(shape.xattrs)?;
        self.writer.begin_file(FileShape { size: shape.size, sparse: shape.sparse, xattr_bytes })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.writer.write_file(offset, bytes)
    }

    fn end(&mut self) -> Result<FileData, WriteError> {
        self.writer.end_file()
    }
}

pub(crate) fn tree(layer: FileTree<FileData>) -> Tree {
    Tree { nodes: layer.nodes.into_iter().map(node).collect() }
}

fn node(from: TreeNode<FileData>) -> Node {
    let mut meta = meta(from.attributes);
    let kind = match from.kind {
        NodeKind::Directory { entries, opaque } => {
            if opaque {
                meta.xattrs.insert(OPAQUE.0.to_vec(), OPAQUE.1.to_vec());
            }
            Kind::Directory(entries.into_iter().collect())
        }
        NodeKind::File(data) => Kind::File(data),
        NodeKind::Symlink(target) => Kind::Symlink(target),
        NodeKind::CharDevice(major, minor) => Kind::CharDevice { major, minor },
        NodeKind::BlockDevice(major, minor) => Kind::BlockDevice { major, minor },
        NodeKind::Fifo => Kind::Fifo,
        NodeKind::Whiteout => Kind::CharDevice { major: 0, minor: 0 },
    };
    Node { meta, kind }
}

fn meta(from: Attributes) -> Meta {
    Meta {
        mode: from.mode,
        uid: from.uid,
        gid: from.gid,
        mtime_seconds: from.mtime_seconds,
        mtime_nanoseconds: from.mtime_nanoseconds,
        xattrs: from.xattrs,
    }
}
