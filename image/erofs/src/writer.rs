use std::io;

use crate::data::{Budget, FileData, FileShape, OpenFile, Place};
use crate::dirent::{self, Dirent};
use crate::error::WriteError;
use crate::format::{self, DataLayout, RawInode, SLOT_BYTES};
use crate::layout::{self, Layout, Placed, Target};
use crate::superblock::Superblock;
use crate::tree::{Kind, Node, NodeId, Tree};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64, MAX_IMAGE_BLOCKS, xattr};

/// Blocks go to the sink in pieces of this many bytes.
const PIECE_BYTES: usize = 128 << 10;

/// Takes an image's blocks: 1, 2, 3 and so on, then block 0.
pub trait BlockSink {
    /// Takes the next whole blocks; gives back a buffer whose contents do not matter, for use again.
    ///
    /// # Errors
    /// What keeps the blocks from being stored.
    fn append(&mut self, blocks: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Takes block 0, once, after all others.
    ///
    /// # Errors
    /// What keeps the block from being stored.
    fn first(&mut self, block: &[u8; BLOCK_BYTES]) -> io::Result<()>;
}

/// The image in memory, for tests and small images.
impl BlockSink for Vec<u8> {
    fn append(&mut self, blocks: Vec<u8>) -> io::Result<Vec<u8>> {
        if self.is_empty() {
            self.resize(BLOCK_BYTES, 0);
        }
        self.extend(&blocks);
        Ok(blocks)
    }

    fn first(&mut self, block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        let head = self.first_chunk_mut().ok_or(io::ErrorKind::InvalidInput)?;
        *head = *block;
        Ok(())
    }
}

/// Collects bytes into pieces for the sink.
#[derive(Debug)]
pub(crate) struct Output<S> {
    sink: S,
    buffer: Vec<u8>,
    flushed_bytes: u64,
}

impl<S: BlockSink> Output<S> {
    /// Offset in the image of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        BLOCK_BYTES_U64 + self.flushed_bytes + self.buffer.len() as u64
    }

    /// The block that the next byte begins; only on a boundary.
    pub(crate) fn next_block(&self) -> Result<u32, WriteError> {
        let block = self.offset() / BLOCK_BYTES_U64;
        u32::try_from(block)
            .ok()
            .filter(|block| u64::from(*block) < MAX_IMAGE_BLOCKS)
            .ok_or(WriteError::TooLarge)
    }

    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.offset() > MAX_IMAGE_BLOCKS * BLOCK_BYTES_U64 {
            return Err(WriteError::TooLarge);
        }
        self.flushed_bytes += self.buffer.len() as u64;
        let full = std::mem::take(&mut self.buffer);
        self.buffer = self.sink.append(full).map_err(WriteError::Sink)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes one image: files first, then [`ImageWriter::finish`] with the tree that names them.
#[derive(Debug)]
pub struct ImageWriter<S> {
    out: Output<S>,
    budget: Budget,
    open: Option<OpenFile>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image, blocks.
    pub blocks: u64,
    /// Inodes in it.
    pub inodes: u64,
}

impl<S: BlockSink> ImageWriter<S> {
    /// An image without files.
    pub fn new(sink: S) -> Self {
        let buffer = Vec::with_capacity(PIECE_BYTES);
        let out = Output { sink, buffer, flushed_bytes: 0 };
        Self { out, budget: Budget::default(), open: None }
    }

    /// Begins a regular file.
    ///
    /// # Errors
    /// [`WriteError`] when the size is over the maximum or another file is still open.
    pub fn begin_file(&mut self, shape: FileShape) -> Result<(), WriteError> {
        if self.open.is_some() {
            return Err(WriteError::FileData { found: 0, expected: 0 });
        }
        let start = self.out.next_block()?;
        self.open = Some(OpenFile::begin(shape, start, &mut self.budget)?);
        Ok(())
    }

    /// Takes bytes of the open file: from the first to the last for a dense file, in ascending order with gaps for a
    /// sparse one.
    ///
    /// # Errors
    /// [`WriteError`] when the bytes do not fit the file, or the sink fails.
    pub fn write_file(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        match &mut self.open {
            Some(open) => open.write(offset, bytes, &mut self.out),
            None => Err(WriteError::FileData { found: offset, expected: 0 }),
        }
    }

    /// Ends the open file.
    ///
    /// # Errors
    /// [`WriteError`] when bytes are missing, or the sink fails.
    pub fn end_file(&mut self) -> Result<FileData, WriteError> {
        match self.open.take() {
            Some(open) => open.end(&mut self.out),
            None => Err(WriteError::FileData { found: 0, expected: 0 }),
        }
    }

    /// Writes the metadata area and block 0, and gives the sink back.
    ///
    /// # Errors
    /// [`WriteError`] when the tree cannot be stored, or the sink fails.
    pub fn finish(mut self, tree: &Tree) -> Result<(S, Summary), WriteError> {
        let layout = layout::place(tree, self.out.next_block()?)?;
        let end = layout.meta_block + layout.meta_bytes.div_ceil(BLOCK_BYTES_U64);
        if end > MAX_IMAGE_BLOCKS {
            return Err(WriteError::TooLarge);
        }
        self.write_loose_blocks(tree, &layout)?;
        let chunks = self.write_inodes(tree, &layout)?;
        self.out.flush()?;
        let inodes = layout.order.len() as u64;
        // The root is placed first, so in the first two blocks of the metadata area.
        let root_nid = layout.placed[0].map_or(0, |root| root.nid as u16);
        let (blocks, meta_block) = (end as u32, layout.meta_block as u32);
        let superblock = Superblock { root_nid, inodes, blocks, meta_block, chunks };
        self.out.sink.first(&superblock.encode()).map_err(WriteError::Sink)?;
        Ok((self.out.sink, Summary { blocks: end, inodes }))
    }

    /// Directories and symlinks: what does not lie beside the inode.
    fn write_loose_blocks(&mut self, tree: &Tree, layout: &Layout) -> Result<(), WriteError> {
        for (_, node, placed) in placed_nodes(tree, layout) {
            let loose = match placed.data {
                DataLayout::Inline => placed.size - placed.size % BLOCK_BYTES_U64,
                _ => placed.size,
            };
            if loose > 0 && !matches!(node.kind, Kind::File(_)) {
                let bytes = own_bytes(node, placed, layout, tree);
                self.out.put(&bytes[..loose as usize])?;
                self.out.pad_block()?;
            }
        }
        Ok(())
    }

    /// The metadata area; true when a chunk map is among it.
    fn write_inodes(&mut self, tree: &Tree, layout: &Layout) -> Result<bool, WriteError> {
        let start = self.out.offset();
        let mut chunks = false;
        for (number, (_, node, placed)) in placed_nodes(tree, layout).enumerate() {
            self.out.put_zeros(start + placed.nid * SLOT_BYTES - self.out.offset())?;
            let xattrs = xattr::encode(&node.meta.xattrs)?;
            let raw = RawInode {
                layout: placed.data,
                xattr_count: xattr::count_field(xattrs.len()),
                file_type: file_type(&node.kind),
                meta: &node.meta,
                size: placed.size,
                u: union_field(node, placed),
                number: number as u32 + 1,
                links: placed.links,
            };
            self.out.put(&raw.encode())?;
            self.out.put(&xattrs)?;
            match &node.kind {
                Kind::File(FileData { place: Place::Chunks { map, .. }, .. }) => {
                    chunks = true;
                    map.iter().try_for_each(|block| self.out.put(&block.to_le_bytes()))?;
                }
                Kind::File(FileData { place: Place::Blocks { tail, .. }, .. }) => {
                    self.out.put(tail)?
                }
                _ if placed.data == DataLayout::Inline => {
                    let bytes = own_bytes(node, placed, layout, tree);
                    let tail = (placed.size % BLOCK_BYTES_U64) as usize;
                    self.out.put(&bytes[bytes.len() - tail..])?;
                }
                _ => {}
            }
        }
        self.out.pad_block()?;
        Ok(chunks)
    }
}

/// The nodes that have a place, in the order of their inodes.
fn placed_nodes<'a>(
    tree: &'a Tree,
    layout: &'a Layout,
) -> impl Iterator<Item = (NodeId, &'a Node, &'a Placed)> {
    layout
        .order
        .iter()
        .filter_map(|id| Some((*id, tree.nodes.get(*id)?, layout.placed.get(*id)?.as_ref()?)))
}

/// Data of a directory or a symlink.
fn own_bytes(node: &Node, placed: &Placed, layout: &Layout, tree: &Tree) -> Vec<u8> {
    let entries = match &node.kind {
        Kind::Directory(entries) => entries,
        Kind::Symlink(target) => return target.to_vec(),
        _ => return Vec::new(),
    };
    let nid_of = |id: NodeId| layout.placed[id].map_or(0, |placed| placed.nid);
    let records: Vec<_> = layout::with_dots(entries)
        .map(|(name, target)| match target {
            Target::Own => Dirent { name, nid: placed.nid, file_type: 2 },
            Target::Parent => Dirent { name, nid: nid_of(placed.parent), file_type: 2 },
            Target::Node(id) => {
                let file_type = format::dirent_type(file_type(&tree.nodes[id].kind));
                Dirent { name, nid: nid_of(id), file_type }
            }
        })
        .collect();
    dirent::encode(&records)
}

fn file_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => format::S_IFDIR,
        Kind::File(_) => format::S_IFREG,
        Kind::Symlink(_) => format::S_IFLNK,
        Kind::CharDevice { .. } => format::S_IFCHR,
        Kind::BlockDevice { .. } => format::S_IFBLK,
        Kind::Fifo => format::S_IFIFO,
        Kind::Socket => format::S_IFSOCK,
    }
}

/// `i_u`. A file or directory without whole blocks has no block address, and 0 stands there.
fn union_field(node: &Node, placed: &Placed) -> u32 {
    let address = |start: u32| match placed.data {
        DataLayout::Inline if placed.size < BLOCK_BYTES_U64 => 0,
        _ if placed.size == 0 => 0,
        _ => start,
    };
    match &node.kind {
        Kind::File(FileData { place: Place::Blocks { start, .. }, .. }) => address(*start),
        Kind::File(FileData { place: Place::Chunks { bits, .. }, .. }) => u32::from(*bits),
        Kind::Directory(_) | Kind::Symlink(_) => address(placed.block),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            format::encode_device(*major, *minor).unwrap_or(0)
        }
        Kind::Fifo | Kind::Socket => 0,
    }
}
