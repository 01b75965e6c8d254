use ah_digest::Sha256;

use crate::{BLOCK_BYTES_U64, MAX_DATA_BLOCKS, tree};

/// What opens a layer block image: nothing else is needed, and nothing else is read from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerityInfo {
    /// Root of the hash tree.
    pub root_hash: Sha256,
    /// Data blocks of 4096 bytes in front of the dm-verity superblock; 1 ..= [`MAX_DATA_BLOCKS`].
    pub data_blocks: u64,
    /// Salt hashed before every block.
    pub salt: [u8; 32],
}

/// Why numbers are not dm-verity parameters of a layer block image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerityError {
    /// The hash offset is not a whole number of blocks.
    #[error(
        "hash offset is not a multiple of the block: found {found} bytes, expected a multiple of 4096"
    )]
    Unaligned {
        /// The offset found, bytes.
        found: u64,
    },
    /// No data, or more than [`MAX_DATA_BLOCKS`].
    #[error("data block count is out of range: found {found}, expected 1 to {MAX_DATA_BLOCKS}")]
    DataBlocks {
        /// The count found.
        found: u64,
    },
    /// A block was pushed beyond [`MAX_DATA_BLOCKS`], or one that was put off was never given.
    #[error("hash tree is incomplete: found {found} data blocks, expected {expected}")]
    Incomplete {
        /// Blocks hashed.
        found: u64,
        /// Blocks announced.
        expected: u64,
    },
}

impl VerityInfo {
    /// Takes parameters in the form in which a storage request carries them (`hashoffset` in bytes).
    ///
    /// # Errors
    /// [`VerityError`] when the offset is not a block boundary within range.
    pub fn from_hash_offset(
        root_hash: Sha256,
        salt: [u8; 32],
        hash_offset_bytes: u64,
    ) -> Result<Self, VerityError> {
        if !hash_offset_bytes.is_multiple_of(BLOCK_BYTES_U64) {
            return Err(VerityError::Unaligned { found: hash_offset_bytes });
        }
        Self { root_hash, data_blocks: hash_offset_bytes / BLOCK_BYTES_U64, salt }.checked()
    }

    /// The same value when its block count is in range.
    ///
    /// # Errors
    /// [`VerityError::DataBlocks`] otherwise.
    pub fn checked(self) -> Result<Self, VerityError> {
        match self.data_blocks {
            1..=MAX_DATA_BLOCKS => Ok(self),
            found => Err(VerityError::DataBlocks { found }),
        }
    }

    /// Offset of the dm-verity superblock, bytes. Equal to the EROFS image's length.
    pub fn hash_offset_bytes(&self) -> u64 {
        self.data_blocks.saturating_mul(BLOCK_BYTES_U64)
    }

    /// First block of the hash tree: behind the data and one superblock block.
    pub fn hash_start_block(&self) -> u64 {
        self.data_blocks.saturating_add(1)
    }

    /// Blocks in the hash tree, the superblock not counted.
    pub fn tree_blocks(&self) -> u64 {
        tree::levels(self.data_blocks).iter().fold(0, |sum, level| sum.saturating_add(level.blocks))
    }

    /// Length of the whole layer block image, bytes: data, superblock, tree.
    pub fn image_bytes(&self) -> u64 {
        self.hash_start_block().saturating_add(self.tree_blocks()).saturating_mul(BLOCK_BYTES_U64)
    }

    /// Length of the mapped device in sectors of 512 bytes.
    pub fn data_sectors(&self) -> u64 {
        self.data_blocks.saturating_mul(8)
    }

    /// Target parameters of the `verity` target, with data and tree on the same device (a path or `major:minor`).
    /// No optional argument: a block that does not match its hash is an I/O error and never reaches a reader.
    pub fn table_parameters(&self, device: &str) -> String {
        format!(
            "1 {device} {device} 4096 4096 {} {} sha256 {} {}",
            self.data_blocks,
            self.hash_start_block(),
            self.root_hash,
            Sha256::new(self.salt),
        )
    }

    /// The whole device-mapper table line: `0 <sectors> verity <parameters>`.
    pub fn table_line(&self, device: &str) -> String {
        format!("0 {} verity {}", self.data_sectors(), self.table_parameters(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hash_offset_bytes: u64, expect: Result<u64, VerityError>) {
        let info = VerityInfo::from_hash_offset(Sha256::of("root"), [0; 32], hash_offset_bytes);
        assert_eq!(info.map(|info| info.data_blocks), expect);
    }

    #[test]
    fn hash_offset_is_a_block_boundary_in_range() {
        check(4096, Ok(1));
        check(4097, Err(VerityError::Unaligned { found: 4097 }));
        check(0, Err(VerityError::DataBlocks { found: 0 }));
        check(MAX_DATA_BLOCKS * 4096, Ok(MAX_DATA_BLOCKS));
        let over = MAX_DATA_BLOCKS + 1;
        check(over * 4096, Err(VerityError::DataBlocks { found: over }));
    }

    #[test]
    fn table_line_names_every_parameter() {
        let info = VerityInfo { root_hash: Sha256::of("r"), data_blocks: 129, salt: [0; 32] };
        let zeros = "0".repeat(64);
        assert_eq!(
            info.table_line("/dev/vda"),
            format!(
                "0 1032 verity 1 /dev/vda /dev/vda 4096 4096 129 130 sha256 {} {zeros}",
                info.root_hash
            ),
        );
        assert_eq!(info.tree_blocks(), 3);
        assert_eq!(info.image_bytes(), (129 + 1 + 3) * 4096);
    }
}
