use crate::{BLOCK_BYTES, Block, MAX_DATA_BLOCKS, VerityInfo};

/// The dm-verity superblock, version 1, in a block of 4096 bytes (little endian):
///
/// ```text
///   0   8  "verity" 00 00        80   2  salt length, 32
///   8   4  version, 1            82   6  zero
///  12   4  hash type, 1          88 256  salt, zero behind its length
///  16  16  UUID, zero           344 3752 zero
///  32  32  "sha256", zero padded
///  64   4  data block size      68   4  hash block size
///  72   8  data blocks
/// ```
///
/// The UUID is nil: the image is named by its root hash, and a random UUID would make it irreproducible. Nobody
/// trusts this block: the guest takes its parameters from the policy. It is there for `veritysetup` and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// Salt hashed before every block.
    pub salt: [u8; 32],
}

/// Why a block is not the superblock of a layer block image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Fewer or more bytes than a block.
    #[error("dm-verity superblock has a wrong length: found {found} bytes, expected 4096")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// The data block count is zero or over the maximum.
    #[error(
        "dm-verity superblock has a wrong data block count: found {found}, expected 1 to {MAX_DATA_BLOCKS}"
    )]
    DataBlocks {
        /// The count found.
        found: u64,
    },
    /// A byte that has one possible value has another.
    #[error("dm-verity superblock differs from the only accepted form at byte {offset}")]
    Fixed {
        /// Offset of the first such byte.
        offset: usize,
    },
}

impl Superblock {
    /// The superblock that belongs to `info`.
    pub fn of(info: &VerityInfo) -> Self {
        Self { data_blocks: info.data_blocks, salt: info.salt }
    }

    /// The block as it stands in the image.
    pub fn encode(&self) -> Block {
        let fields: [(usize, &[u8]); 9] = [
            (0, b"verity\0\0"),
            (8, &1u32.to_le_bytes()),
            (12, &1u32.to_le_bytes()),
            (32, b"sha256"),
            (64, &4096u32.to_le_bytes()),
            (68, &4096u32.to_le_bytes()),
            (72, &self.data_blocks.to_le_bytes()),
            (80, &32u16.to_le_bytes()),
            (88, &self.salt),
        ];
        let mut block = [0; BLOCK_BYTES];
        for (offset, bytes) in fields {
            block.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
        }
        block
    }

    /// Reads a superblock; the inverse of [`Superblock::encode`], and nothing else is accepted.
    ///
    /// # Errors
    /// [`SuperblockError`] for any other byte string.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let block: &Block =
            bytes.try_into().map_err(|_| SuperblockError::Length { found: bytes.len() })?;
        let short = SuperblockError::Length { found: bytes.len() };
        let data_blocks = u64::from_le_bytes(
            *block.get(72..).and_then(|b| b.first_chunk()).ok_or(short.clone())?,
        );
        let salt = *block.get(88..).and_then(|b| b.first_chunk()).ok_or(short)?;
        let found = Self { data_blocks, salt };
        match found.encode().iter().zip(block).position(|(a, b)| a != b) {
            Some(offset) => Err(SuperblockError::Fixed { offset }),
            None if (1..=MAX_DATA_BLOCKS).contains(&data_blocks) => Ok(found),
            None => Err(SuperblockError::DataBlocks { found: data_blocks }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_exact_length_is_read() {
        let block = Superblock { data_blocks: 7, salt: [0; 32] }.encode();
        assert_eq!(Superblock::parse(&block).unwrap().data_blocks, 7);
        let short = Superblock::parse(&block[..4095]);
        assert_eq!(short, Err(SuperblockError::Length { found: 4095 }));
        let zero = Superblock { data_blocks: 0, salt: [0; 32] }.encode();
        assert_eq!(Superblock::parse(&zero), Err(SuperblockError::DataBlocks { found: 0 }));
    }

    proptest! {
        #[test]
        fn round_trip_and_no_second_form(
            data_blocks in 1..=MAX_DATA_BLOCKS,
            salt in any::<[u8; 32]>(),
            offset in 0..BLOCK_BYTES,
            flip in 1..=255u8,
        ) {
            let superblock = Superblock { data_blocks, salt };
            let mut block = superblock.encode();
            prop_assert_eq!(Superblock::parse(&block), Ok(superblock));
            block[offset] ^= flip;
            let changed = Superblock::parse(&block);
            match offset {
                72..80 | 88..120 => prop_assert_ne!(changed, Ok(superblock)),
                _ => prop_assert_eq!(changed, Err(SuperblockError::Fixed { offset })),
            }
        }
    }
}
