use crate::crc32c::crc32c_raw;
use crate::error::ReadError;
use crate::format::SLOT_BYTES;
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64, MAX_IMAGE_BLOCKS};

/// Offset of the superblock in block 0, bytes.
pub(crate) const OFFSET: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM` and `EROFS_FEATURE_COMPAT_MTIME`.
const COMPAT: u32 = 0x1 | 0x2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE` (Linux 5.15): set when a sparse file is there.
const INCOMPAT_CHUNKS: u32 = 0x4;
const BLOCK_BITS: u8 = 12;

/// `struct erofs_super_block`: the fields that differ from image to image. UUID, volume name and build time are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) meta_block: u32,
    pub(crate) chunks: bool,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = self.without_checksum();
        let checksum = crc32c_raw(&block[OFFSET..]);
        block[OFFSET + 4..OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    fn without_checksum(&self) -> [u8; BLOCK_BYTES] {
        let incompat = if self.chunks { INCOMPAT_CHUNKS } else { 0 };
        let mut block = [0; BLOCK_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            block[OFFSET + offset..OFFSET + offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT.to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(80, &incompat.to_le_bytes());
        block
    }

    /// Reads block 0; `image_bytes` is the length of what holds the image.
    pub(crate) fn parse(block: &[u8; BLOCK_BYTES], image_bytes: u64) -> Result<Self, ReadError> {
        let u32_at =
            |offset: usize| u32::from_le_bytes(std::array::from_fn(|i| block[OFFSET + offset + i]));
        if u32_at(0) != MAGIC {
            return Err(ReadError::Field { what: "superblock magic", found: u32_at(0).into() });
        }
        let incompat = u32_at(80);
        if incompat & !INCOMPAT_CHUNKS != 0 {
            let found = incompat.into();
            return Err(ReadError::Field { what: "superblock incompatible features", found });
        }
        let parsed = Self {
            root_nid: u16::from_le_bytes([block[OFFSET + 14], block[OFFSET + 15]]),
            inodes: u64::from(u32_at(16)) | (u64::from(u32_at(20)) << 32),
            blocks: u32_at(36),
            meta_block: u32_at(40),
            chunks: incompat & INCOMPAT_CHUNKS != 0,
        };
        let mut unsummed = *block;
        unsummed[OFFSET + 4..OFFSET + 8].fill(0);
        let (found, expected) = (crc32c_raw(&unsummed[OFFSET..]), u32_at(4));
        if found != expected {
            return Err(ReadError::Checksum { found, expected });
        }
        // Every field that has one possible value is compared at once, by writing what was read again.
        if let Some(offset) = parsed.encode().iter().zip(block).position(|(a, b)| a != b) {
            return Err(ReadError::Field {
                what: "superblock byte at offset",
                found: offset as u64,
            });
        }
        parsed.in_range(image_bytes)
    }

    fn in_range(self, image_bytes: u64) -> Result<Self, ReadError> {
        let blocks = u64::from(self.blocks);
        if blocks > MAX_IMAGE_BLOCKS || blocks * BLOCK_BYTES_U64 > image_bytes {
            return Err(ReadError::Outside {
                what: "last block",
                offset: blocks * BLOCK_BYTES_U64,
                end: image_bytes,
            });
        }
        if self.meta_block == 0 || self.meta_block >= self.blocks {
            return Err(ReadError::Field { what: "metadata block", found: self.meta_block.into() });
        }
        let slots = (blocks - u64::from(self.meta_block)) * BLOCK_BYTES_U64 / SLOT_BYTES;
        if self.inodes == 0 || self.inodes > slots {
            return Err(ReadError::Field { what: "inode count", found: self.inodes });
        }
        Ok(self)
    }
}
