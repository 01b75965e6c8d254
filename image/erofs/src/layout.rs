//! Where each inode goes: order, node ids, block addresses, link counts. Everything is known before the first byte of
//! the metadata area is written.

use crate::data::Place;
use crate::dirent::directory_bytes;
use crate::error::WriteError;
use crate::format::{self, DataLayout, FIRST_NID, INODE_BYTES, SLOT_BYTES};
use crate::tree::{Kind, Node, NodeId, Tree};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64, MAX_INODES, MAX_NAME_BYTES, MAX_SYMLINK_BYTES, xattr};

/// What the layout decided for one node; `None` for a node that nothing names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) nid: u64,
    pub(crate) links: u32,
    pub(crate) parent: NodeId,
    pub(crate) data: DataLayout,
    /// First of the blocks written between file data and metadata, for directories and long symlinks.
    pub(crate) block: u32,
    /// Length of the data, bytes.
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct Layout {
    /// Nodes in the order of their inodes: a directory's entries together, then its subdirectories.
    pub(crate) order: Vec<NodeId>,
    pub(crate) placed: Vec<Option<Placed>>,
    /// First block of the metadata area.
    pub(crate) meta_block: u64,
    /// Length of the metadata area, bytes.
    pub(crate) meta_bytes: u64,
}

/// Places every node of `tree`; `next_block` is the first block behind the file data.
pub(crate) fn place(tree: &Tree, next_block: u32) -> Result<Layout, WriteError> {
    if tree.nodes.len() > MAX_INODES {
        return Err(WriteError::TooManyInodes { found: tree.nodes.len() });
    }
    let mut layout = order(tree)?;
    let mut block = u64::from(next_block);
    let mut cursor = FIRST_NID * SLOT_BYTES;
    for id in &layout.order {
        let (Some(node), Some(Some(placed))) = (tree.nodes.get(*id), layout.placed.get_mut(*id))
        else {
            return Err(WriteError::Tree { node: *id });
        };
        let beside = place_data(node, placed, &mut block)?;
        let bytes = INODE_BYTES + xattr::xattr_bytes(&node.meta.xattrs)? as u64 + beside;
        cursor = fit(cursor.next_multiple_of(SLOT_BYTES), bytes);
        placed.nid = cursor / SLOT_BYTES;
        cursor += bytes;
    }
    layout.meta_block = block;
    layout.meta_bytes = cursor;
    Ok(layout)
}

/// Start of a record of `bytes`: within one block when it fits into one. The kernel refuses an inline tail that crosses
/// a block boundary.
fn fit(cursor: u64, bytes: u64) -> u64 {
    if cursor % BLOCK_BYTES_U64 + bytes > BLOCK_BYTES_U64 {
        cursor.next_multiple_of(BLOCK_BYTES_U64)
    } else {
        cursor
    }
}

/// Decides a node's data layout; returns the bytes that lie behind its inode and xattrs.
fn place_data(node: &Node, placed: &mut Placed, block: &mut u64) -> Result<u64, WriteError> {
    let size = match &node.kind {
        Kind::File(data) => {
            placed.size = data.size;
            let (layout, beside) = match &data.place {
                Place::Blocks { tail, .. } if tail.is_empty() => (DataLayout::Plain, 0),
                Place::Blocks { tail, .. } => (DataLayout::Inline, tail.len()),
                Place::Chunks { map, .. } => (DataLayout::Chunks, map.len() * 4),
            };
            placed.data = layout;
            return Ok(beside as u64);
        }
        Kind::Directory(entries) => directory_size(entries)?,
        Kind::Symlink(target) => {
            if target.is_empty() || target.len() > MAX_SYMLINK_BYTES || target.contains(&0) {
                return Err(WriteError::Symlink { found: target.len() });
            }
            target.len() as u64
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            format::encode_device(*major, *minor)
                .ok_or(WriteError::Device { major: *major, minor: *minor })?;
            return Ok(0);
        }
        Kind::Fifo | Kind::Socket => return Ok(0),
    };
    placed.size = size;
    placed.block = u32::try_from(*block).map_err(|_| WriteError::TooLarge)?;
    let tail = size % BLOCK_BYTES_U64;
    let beside = INODE_BYTES + xattr::xattr_bytes(&node.meta.xattrs)? as u64 + tail;
    if tail == 0 || beside > BLOCK_BYTES_U64 {
        *block += size.div_ceil(BLOCK_BYTES_U64);
        return Ok(0);
    }
    placed.data = DataLayout::Inline;
    *block += size / BLOCK_BYTES_U64;
    Ok(tail)
}

fn directory_size(entries: &[(Box<[u8]>, NodeId)]) -> Result<u64, WriteError> {
    let mut before: &[u8] = b"";
    for (name, node) in entries {
        let usable = !matches!(&**name, b"" | b"." | b"..")
            && name.len() <= MAX_NAME_BYTES
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !usable {
            return Err(WriteError::Name { found: String::from_utf8_lossy(name).into_owned() });
        }
        if &**name <= before {
            return Err(WriteError::Tree { node: *node });
        }
        before = name;
    }
    Ok(directory_bytes(with_dots(entries).map(|(name, _)| name.len())))
}

/// A directory's entry as it will be written: what its name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Own,
    Parent,
    Node(NodeId),
}

/// All entries in byte order, with `.` and `..` where they belong.
pub(crate) fn with_dots(
    entries: &[(Box<[u8]>, NodeId)],
) -> impl Iterator<Item = (&[u8], Target)> + Clone {
    let dots = [(&b"."[..], Target::Own), (&b".."[..], Target::Parent)];
    let split = entries.partition_point(|(name, _)| **name < b"."[..]);
    let split_parent = entries.partition_point(|(name, _)| **name < b".."[..]);
    let named = |range: std::ops::Range<usize>| {
        entries[range].iter().map(|(name, node)| (&**name, Target::Node(*node)))
    };
    named(0..split)
        .chain([dots[0]])
        .chain(named(split..split_parent))
        .chain([dots[1]])
        .chain(named(split_parent..entries.len()))
}

/// Walks the tree without recursion, numbers what it reaches and counts links.
fn order(tree: &Tree) -> Result<Layout, WriteError> {
    let mut layout = Layout {
        order: vec![],
        placed: vec![None; tree.nodes.len()],
        meta_block: 0,
        meta_bytes: 0,
    };
    let mut pending = vec![0];
    reach(tree, 0, 0, &mut layout)?;
    while let Some(directory) = pending.pop() {
        let Some(Kind::Directory(entries)) = tree.nodes.get(directory).map(|node| &node.kind)
        else {
            return Err(WriteError::Tree { node: directory });
        };
        let first_below = pending.len();
        for (_, child) in entries {
            if reach(tree, *child, directory, &mut layout)? {
                pending.push(*child);
            }
        }
        pending[first_below..].reverse();
    }
    Ok(layout)
}

/// Counts one link to `id`; true when it is a directory, which only one parent may name.
fn reach(tree: &Tree, id: NodeId, parent: NodeId, to: &mut Layout) -> Result<bool, WriteError> {
    let (Some(node), Some(slot)) = (tree.nodes.get(id), to.placed.get_mut(id)) else {
        return Err(WriteError::Tree { node: id });
    };
    let directory = matches!(node.kind, Kind::Directory(_));
    match slot {
        Some(_) if directory => return Err(WriteError::Tree { node: id }),
        Some(placed) => placed.links = placed.links.saturating_add(1),
        None => {
            let links = if directory { 2 } else { 1 };
            *slot =
                Some(Placed { nid: 0, links, parent, data: DataLayout::Plain, block: 0, size: 0 });
            to.order.push(id);
        }
    }
    if directory
        && id != parent
        && let Some(Some(above)) = to.placed.get_mut(parent)
    {
        above.links = above.links.saturating_add(1);
    }
    Ok(directory)
}

const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_BYTES_U64);
