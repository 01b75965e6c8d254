//! The entries of one layer, applied in their order to an empty tree (OCI image specification, layer.md).

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::path::{self, PathError};
use crate::tar::{Entries, Entry, EntryKind, TarError, lossy};

/// Most bytes of names, link targets and extended attributes of one layer: they are held in memory.
pub const MAX_METADATA_BYTES: u64 = 256 << 20;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that AUFS kept for itself, and the opaque mark.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Attributes by which overlayfs redirects and hides: in a layer they would let an image say what the layers below it
/// hold.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// What a layer says about the tree below it and adds to it. Node 0 is the root directory.
#[derive(Debug)]
pub struct FileTree<C> {
    /// The nodes; directories name them by number. Some may have no name any more.
    pub nodes: Vec<TreeNode<C>>,
}

/// One file of any kind.
#[derive(Debug)]
pub struct TreeNode<C> {
    /// Owner, permissions, time, extended attributes.
    pub attributes: Attributes,
    /// What it is.
    pub kind: NodeKind<C>,
}

/// What every file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_seconds: i64,
    /// Modification time, nanoseconds beside the seconds.
    pub mtime_nanoseconds: u32,
    /// Extended attributes: full name to value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is. `C` is where its sink put a file's data.
#[derive(Debug)]
pub enum NodeKind<C> {
    /// A directory.
    Directory {
        /// Names and nodes.
        entries: BTreeMap<Box<[u8]>, usize>,
        /// Whether what lower layers have in it is hidden.
        opaque: bool,
    },
    /// A regular file.
    File(C),
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Nothing: what lower layers have under this name is removed.
    Whiteout,
}

/// What is known of a file before its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape<'a> {
    /// Path as the tar has it.
    pub path: &'a [u8],
    /// Length, bytes.
    pub size: u64,
    /// Whether only parts of it are given.
    pub sparse: bool,
    /// Its extended attributes.
    pub xattrs: &'a BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Takes the data of regular files as they stream by, one file after the other.
pub trait ContentSink {
    /// Where a file's data is.
    type Content;
    /// Why it could not be taken.
    type Error;
    /// Begins a file.
    ///
    /// # Errors
    /// The sink's own.
    fn begin(&mut self, shape: Shape<'_>) -> Result<(), Self::Error>;
    /// Takes bytes at an offset in the file; offsets ascend, gaps are holes.
    ///
    /// # Errors
    /// The sink's own.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Ends the file.
    ///
    /// # Errors
    /// The sink's own.
    fn end(&mut self) -> Result<Self::Content, Self::Error>;
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError<E: std::error::Error + 'static> {
    /// The tar itself.
    #[error("layer tar is not acceptable at byte {offset}")]
    Tar {
        /// Offset in the tar of what was read last, bytes.
        offset: u64,
        /// What is wrong.
        source: TarError,
    },
    /// An entry's path.
    #[error("layer entry {path:?} is refused")]
    Path {
        /// The path, lossy.
        path: String,
        /// What is wrong.
        source: PathError,
    },
    /// A hard link to something that no earlier entry of this layer made. Layers keep the files of lower layers apart,
    /// and a link to one would be another file.
    #[error(
        "hard link {path:?} is refused: its target {target:?} is no earlier file of this layer"
    )]
    LinkTarget {
        /// The link's path, lossy.
        path: String,
        /// The target, lossy.
        target: String,
    },
    /// A path leads through something that is no directory in this layer.
    #[error("layer entry {path:?} is refused: {parent:?} is not a directory in this layer")]
    ParentNotDirectory {
        /// The path, lossy.
        path: String,
        /// Name of the part in question, lossy.
        parent: String,
    },
    /// The root of the tree is not a directory.
    #[error("layer entry {path:?} would replace the root directory")]
    Root {
        /// The path, lossy.
        path: String,
    },
    /// A name that begins with `.wh.` and is no whiteout.
    #[error("layer entry {path:?} is not a whiteout that can be understood")]
    Whiteout {
        /// The path, lossy.
        path: String,
    },
    /// Something that overlayfs would read as its own mark.
    #[error("layer entry {path:?} is refused: {what} is overlayfs's own mark")]
    OverlayMark {
        /// The path, lossy.
        path: String,
        /// The mark.
        what: String,
    },
    /// A path that ends with a slash and is no directory.
    #[error("layer entry {path:?} ends with a slash and is not a directory")]
    TrailingSlash {
        /// The path, lossy.
        path: String,
    },
    /// Names, link targets and attributes are too many.
    #[error("layer metadata is too large: expected at most {MAX_METADATA_BYTES} bytes")]
    TooMuchMetadata,
    /// The sink refused a file.
    #[error("layer file {path:?} is not stored")]
    Sink {
        /// The path, lossy.
        path: String,
        /// The sink's reason.
        source: E,
    },
}

/// Reads a whole layer tar, to the end of `source`. File data goes to `sink`, the rest is the result.
///
/// Entries apply in order and the last of a name wins; a directory over a directory keeps what is in it. Parents that
/// no entry made are directories of root with mode 0755. Whiteouts and opaque marks are about lower layers only, so
/// their place among the entries does not matter.
///
/// # Errors
/// [`LayerError`]; `sink` may have taken data by then.
pub fn read_layer<R: BufRead, S: ContentSink>(
    source: R,
    sink: &mut S,
) -> Result<FileTree<S::Content>, LayerError<S::Error>>
where
    S::Error: std::error::Error + 'static,
{
    let mut entries = Entries::new(source);
    let mut builder = Builder { nodes: vec![implicit_directory(false)], metadata_bytes: 0 };
    loop {
        let next = entries.next_entry();
        match next.map_err(|source| LayerError::Tar { offset: entries.position(), source })? {
            Some(entry) => builder.apply(entry, &mut entries, sink)?,
            None => return Ok(FileTree { nodes: builder.nodes }),
        }
    }
}

struct Builder<C> {
    nodes: Vec<TreeNode<C>>,
    metadata_bytes: u64,
}

/// Failures of taking one file's data, before the path is known to them.
enum DataError<E> {
    Tar(TarError),
    Sink(E),
}

impl<E> From<TarError> for DataError<E> {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

impl<C> Builder<C> {
    fn apply<R: BufRead, S: ContentSink<Content = C>>(
        &mut self,
        entry: Entry,
        entries: &mut Entries<R>,
        sink: &mut S,
    ) -> Result<(), LayerError<S::Error>>
    where
        S::Error: std::error::Error + 'static,
    {
        self.account(&entry)?;
        refuse_marks(&entry)?;
        let path = entry.path.clone();
        let parts =
            path::parts(&path).map_err(|source| LayerError::Path { path: lossy(&path), source })?;
        let Some((name, parents)) = parts.split_last() else {
            return self.apply_root(entry);
        };
        if path.ends_with(b"/") && entry.kind != EntryKind::Directory {
            return Err(LayerError::TrailingSlash { path: lossy(&path) });
        }
        let parent = self.parent(&path, parents)?;
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&entry, parent, name);
        }
        if entry.kind == EntryKind::HardLink {
            return self.hard_link(&entry, parent, name);
        }
        let kind = self.kind_of(&entry, entries, sink)?;
        self.place(parent, name, TreeNode { attributes: attributes(entry), kind });
        Ok(())
    }

    fn account<E: std::error::Error>(&mut self, entry: &Entry) -> Result<(), LayerError<E>> {
        let xattrs: usize = entry.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
        let bytes = entry.path.len() + entry.link.len() + xattrs;
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes as u64);
        if self.metadata_bytes > MAX_METADATA_BYTES {
            return Err(LayerError::TooMuchMetadata);
        }
        Ok(())
    }

    fn apply_root<E: std::error::Error>(&mut self, entry: Entry) -> Result<(), LayerError<E>> {
        if entry.kind != EntryKind::Directory {
            return Err(LayerError::Root { path: lossy(&entry.path) });
        }
        self.nodes[0].attributes = attributes(entry);
        Ok(())
    }

    /// The directory of the next part, made when it is missing.
    fn parent<E: std::error::Error>(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
    ) -> Result<usize, LayerError<E>> {
        let mut at = 0;
        for part in parents {
            at = match self.child(at, part) {
                Some(id) if self.is_directory(id) => id,
                Some(id) if matches!(self.nodes[id].kind, NodeKind::Whiteout) => {
                    self.insert(at, part, implicit_directory(true))
                }
                None if !part.starts_with(WHITEOUT) => {
                    self.insert(at, part, implicit_directory(false))
                }
                None => return Err(LayerError::Whiteout { path: lossy(path) }),
                Some(_) => {
                    let (path, parent) = (lossy(path), lossy(part));
                    return Err(LayerError::ParentNotDirectory { path, parent });
                }
            };
        }
        Ok(at)
    }

    fn whiteout<E: std::error::Error>(
        &mut self,
        entry: &Entry,
        parent: usize,
        name: &[u8],
    ) -> Result<(), LayerError<E>> {
        let refused = || LayerError::Whiteout { path: lossy(&entry.path) };
        if entry.kind != EntryKind::File || entry.size != 0 {
            return Err(refused());
        }
        if name == OPAQUE {
            self.make_opaque(parent);
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if name.starts_with(WHITEOUT_META) || matches!(hidden, b"" | b"." | b"..") {
            return Err(refused());
        }
        match self.child(parent, hidden) {
            Some(id) => self.make_opaque(id),
            None => {
                let attributes = Attributes::default();
                self.insert(parent, hidden, TreeNode { attributes, kind: NodeKind::Whiteout });
            }
        }
        Ok(())
    }

    fn hard_link<E: std::error::Error>(
        &mut self,
        entry: &Entry,
        parent: usize,
        name: &[u8],
    ) -> Result<(), LayerError<E>> {
        let path = || lossy(&entry.path);
        let parts = path::parts(&entry.link)
            .map_err(|source| LayerError::Path { path: lossy(&entry.link), source })?;
        let target = parts.iter().try_fold(0, |at, part| self.child(at, part));
        let target = target.filter(|id| {
            !matches!(self.nodes[*id].kind, NodeKind::Directory { .. } | NodeKind::Whiteout)
        });
        let target = target
            .ok_or_else(|| LayerError::LinkTarget { path: path(), target: lossy(&entry.link) })?;
        if let NodeKind::Directory { entries, .. } = &mut self.nodes[parent].kind {
            entries.insert(name.into(), target);
        }
        Ok(())
    }

    fn kind_of<R: BufRead, S: ContentSink<Content = C>>(
        &mut self,
        entry: &Entry,
        entries: &mut Entries<R>,
        sink: &mut S,
    ) -> Result<NodeKind<C>, LayerError<S::Error>>
    where
        S::Error: std::error::Error + 'static,
    {
        let (major, minor) = entry.device;
        Ok(match entry.kind {
            EntryKind::Directory => NodeKind::Directory { entries: BTreeMap::new(), opaque: false },
            EntryKind::Symlink => NodeKind::Symlink(self.symlink_target(entry)?),
            EntryKind::CharDevice => NodeKind::CharDevice(major, minor),
            EntryKind::BlockDevice => NodeKind::BlockDevice(major, minor),
            EntryKind::Fifo => NodeKind::Fifo,
            EntryKind::File | EntryKind::HardLink => {
                let taken = take_data(entry, entries, sink);
                NodeKind::File(taken.map_err(|error| match error {
                    DataError::Tar(source) => {
                        LayerError::Tar { offset: entries.position(), source }
                    }
                    DataError::Sink(source) => {
                        LayerError::Sink { path: lossy(&entry.path), source }
                    }
                })?)
            }
        })
    }

    /// A symlink's target is kept as it is: it is resolved inside the container's root. Only what Linux could not hold
    /// is refused.
    fn symlink_target<E: std::error::Error>(
        &self,
        entry: &Entry,
    ) -> Result<Box<[u8]>, LayerError<E>> {
        let refuse = |source| Err(LayerError::Path { path: lossy(&entry.path), source });
        match entry.link.len() {
            0 => refuse(PathError::Empty),
            found @ path::MAX_PATH_BYTES.. => {
                refuse(PathError::TooLong { found, expected: path::MAX_PATH_BYTES - 1 })
            }
            _ => Ok(entry.link.as_slice().into()),
        }
    }

    /// Puts a node under a name, over what this layer had there.
    fn place(&mut self, parent: usize, name: &[u8], mut node: TreeNode<C>) {
        let old = self.child(parent, name);
        if let (NodeKind::Directory { opaque, .. }, Some(id)) = (&mut node.kind, old) {
            if self.is_directory(id) {
                self.nodes[id].attributes = node.attributes;
                return;
            }
            // What stood here hid the lower layers' directory; unpacking in order would leave nothing of it.
            *opaque = true;
        }
        self.insert(parent, name, node);
    }

    fn insert(&mut self, parent: usize, name: &[u8], node: TreeNode<C>) -> usize {
        let id = self.nodes.len();
        self.nodes.push(node);
        if let NodeKind::Directory { entries, .. } = &mut self.nodes[parent].kind {
            entries.insert(name.into(), id);
        }
        id
    }

    fn child(&self, directory: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[directory].kind {
            NodeKind::Directory { entries, .. } => entries.get(name).copied(),
            _ => None,
        }
    }

    fn is_directory(&self, id: usize) -> bool {
        matches!(self.nodes[id].kind, NodeKind::Directory { .. })
    }

    /// A file hides what is below it anyway; only a directory needs the mark.
    fn make_opaque(&mut self, id: usize) {
        if let NodeKind::Directory { opaque, .. } = &mut self.nodes[id].kind {
            *opaque = true;
        }
    }
}

fn take_data<R: BufRead, S: ContentSink>(
    entry: &Entry,
    entries: &mut Entries<R>,
    sink: &mut S,
) -> Result<S::Content, DataError<S::Error>> {
    let sparse = entry.sparse.is_some();
    let shape = Shape { path: &entry.path, size: entry.size, sparse, xattrs: &entry.xattrs };
    sink.begin(shape).map_err(DataError::Sink)?;
    entries.read_data(entry, |offset, bytes| sink.write(offset, bytes).map_err(DataError::Sink))?;
    sink.end().map_err(DataError::Sink)
}

fn refuse_marks<E: std::error::Error>(entry: &Entry) -> Result<(), LayerError<E>> {
    let mark = |what| Err(LayerError::OverlayMark { path: lossy(&entry.path), what });
    if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
        return mark("character device 0:0".into());
    }
    match entry.xattrs.keys().find(|name| name.starts_with(OVERLAY_XATTRS)) {
        Some(name) => mark(lossy(name)),
        None => Ok(()),
    }
}

fn attributes(entry: Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_seconds: entry.mtime_seconds,
        mtime_nanoseconds: entry.mtime_nanoseconds,
        xattrs: entry.xattrs,
    }
}

fn implicit_directory<C>(opaque: bool) -> TreeNode<C> {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    TreeNode { attributes, kind: NodeKind::Directory { entries: BTreeMap::new(), opaque } }
}
