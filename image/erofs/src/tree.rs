use std::collections::BTreeMap;

use crate::data::FileData;

/// Number of a node in its [`Tree`].
pub type NodeId = usize;

/// The file tree to write. Node 0 is the root and a directory. Several directory entries may name the same node
/// (hard links), except for directories, which have one parent each. Nodes that no entry names are left out.
#[derive(Debug, Default)]
pub struct Tree {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// One inode.
#[derive(Debug)]
pub struct Node {
    /// Owner, permissions, time, extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// What every inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, 0o7777 at most; others are cut off.
    pub mode: u16,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_seconds: i64,
    /// Modification time, nanoseconds beside the seconds; below 10^9.
    pub mtime_nanoseconds: u32,
    /// Extended attributes: full name to value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// A directory: names in byte order, without `.` and `..`.
    Directory(Vec<(Box<[u8]>, NodeId)>),
    /// A regular file whose bytes were given to the same writer.
    File(FileData),
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device. 0:0 is what overlayfs takes for "removed".
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}
