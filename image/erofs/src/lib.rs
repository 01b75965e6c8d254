//! A deterministic EROFS writer and a strict, bounded reader.
//!
//! The writer streams: file data goes to the image as it arrives, the metadata area follows it, and block 0 with the
//! superblock is given to the sink last. Equal calls give equal bytes; there is no clock, no randomness and no
//! dependence on the machine.
//!
//! ```text
//! block 0                superblock at byte 1024, the rest zero
//! block 1 ..             file data in order of arrival, each file on a block boundary
//!    ..                  directory blocks and long symlinks that do not fit beside their inode
//! meta_blkaddr ..        inodes (64 bytes, extended form), each followed by its xattrs and its inline tail or chunk map
//! ```
//!
//! Source of every number of the format: Linux `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst` (6.1).
#![forbid(unsafe_code)]

mod crc32c;
mod data;
mod dirent;
mod error;
mod format;
mod layout;
mod reader;
mod superblock;
mod tree;
mod walk;
mod writer;
mod xattr;

pub use data::{FileData, FileShape};
pub use error::{ReadError, WriteError};
pub use reader::{Entry, FileKind, Image, Inode, ReadAt};
pub use tree::{Kind, Meta, Node, NodeId, Tree};
pub use writer::{BlockSink, ImageWriter, Summary};
pub use xattr::{MAX_XATTR_BYTES, xattr_bytes};

/// Size of a block, bytes; the only one written and read.
pub const BLOCK_BYTES: usize = 4096;
pub(crate) const BLOCK_BYTES_U64: u64 = 4096;
/// Most blocks of an image (64 GiB). The format allows 2^32; the hash tree is held in memory while it is built.
pub const MAX_IMAGE_BLOCKS: u64 = 1 << 24;
/// Most directory entries of an image, hard links counted.
pub const MAX_DIRENTS: usize = 1 << 22;
/// Most inodes of an image.
pub const MAX_INODES: usize = 1 << 21;
/// Longest name in a directory, bytes (Linux NAME_MAX).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest symlink target, bytes (Linux PATH_MAX less its NUL).
pub const MAX_SYMLINK_BYTES: usize = 4095;
/// Longest file, bytes (1 TiB): what a sparse file may claim.
pub const MAX_FILE_BYTES: u64 = 1 << 40;
/// Longest file tail that is stored beside its inode, bytes.
pub const MAX_INLINE_TAIL_BYTES: usize = 2048;
/// Most bytes of inline tails in one image: they wait in memory until the metadata area is written. Files behind the
/// one that reaches it get whole blocks.
pub const MAX_INLINE_TOTAL_BYTES: usize = 32 << 20;
/// Most chunks of a sparse file; the chunk size is the smallest power of two that keeps to it. Parts of a chunk are
/// stored with zeros up to its end.
pub const MAX_CHUNKS: u64 = 4096;
/// Most chunks of all sparse files of one image: their maps wait in memory until the metadata area is written.
pub const MAX_CHUNKS_TOTAL: u64 = 8 << 20;
