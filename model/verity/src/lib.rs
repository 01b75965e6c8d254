//! dm-verity: parameters, superblock, hash-tree build and check, device-mapper table line; the only definition.
//!
//! One shape only, the one that the layer block image uses: SHA-256, data and hash blocks of 4096 bytes, hash type 1
//! (salt before data), a salt of 32 bytes. Everything else is refused, so that no parameter is left for a host to choose.
//!
//! Sources: Linux `Documentation/admin-guide/device-mapper/verity.rst`; cryptsetup wiki, "DMVerity", on-disk format.
#![forbid(unsafe_code)]

mod info;
mod superblock;
mod tree;

pub use info::{VerityError, VerityInfo};
pub use superblock::{Superblock, SuperblockError};
pub use tree::{Tree, TreeBuilder, check_block};

/// Size of a data block and of a hash block, bytes.
pub const BLOCK_BYTES: usize = 4096;
/// [`BLOCK_BYTES`] as the type of offsets.
pub const BLOCK_BYTES_U64: u64 = 4096;
/// Hashes of 32 bytes in one hash block.
pub const HASHES_PER_BLOCK: u64 = 128;
/// The salt of every layer block image: 32 zero bytes. Layers are public bytes named by their digest; a salt that
/// differed from image to image would only keep equal layers from having equal root hashes.
pub const ZERO_SALT: [u8; 32] = [0; 32];
/// Most data blocks accepted (16 TiB): EROFS counts blocks in 32 bits.
pub const MAX_DATA_BLOCKS: u64 = u32::MAX as u64;

/// One block.
pub type Block = [u8; BLOCK_BYTES];
