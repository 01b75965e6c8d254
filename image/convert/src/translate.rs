//! A layer's tree as the EROFS tree that overlayfs reads.

use ah_erofs::{FileData, FileShape, ImageWriter, Kind, Meta, Node, Tree, WriteError, xattr_bytes};
use ah_oci::{Attributes, ContentSink, FileTree, NodeKind, Shape, TreeNode};

use crate::output::Pump;
use crate::watch::{MAX_WATCHED_FILE_BYTES, Watch};

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Hands the files of a layer to the image writer, and keeps the bytes of those that are watched.
pub(crate) struct Files<'a> {
    pub(crate) writer: ImageWriter<Pump>,
    pub(crate) watch: Watch<'a>,
    /// The bytes of the open file, if it is watched.
    pub(crate) taking: Option<Vec<u8>>,
}

/// Where a file's bytes are in the image, and the bytes of a watched one.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) data: FileData,
    pub(crate) taken: Option<Box<[u8]>>,
}

impl ContentSink for Files<'_> {
    type Content = Content;
    type Error = WriteError;

    fn begin(&mut self, shape: Shape<'_>) -> Result<(), WriteError> {
        let taken =
            shape.size <= MAX_WATCHED_FILE_BYTES && !shape.sparse && self.watch.wants(shape.path);
        self.taking = taken.then(Vec::new);
        let xattr_bytes = xattr_bytes(shape.xattrs)?;
        self.writer.begin_file(FileShape { size: shape.size, sparse: shape.sparse, xattr_bytes })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        if let Some(taking) = &mut self.taking {
            taking.extend(bytes);
        }
        self.writer.write_file(offset, bytes)
    }

    fn end(&mut self) -> Result<Content, WriteError> {
        let taken = self.taking.take().map(Vec::into_boxed_slice);
        Ok(Content { data: self.writer.end_file()?, taken })
    }
}

pub(crate) fn tree(layer: FileTree<Content>) -> Tree {
    Tree { nodes: layer.nodes.into_iter().map(node).collect() }
}

fn node(from: TreeNode<Content>) -> Node {
    let mut meta = meta(from.attributes);
    let kind = match from.kind {
        NodeKind::Directory { entries, opaque } => {
            if opaque {
                meta.xattrs.insert(OPAQUE.0.to_vec(), OPAQUE.1.to_vec());
            }
            Kind::Directory(entries.into_iter().collect())
        }
        NodeKind::File(content) => Kind::File(content.data),
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
