use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use ah_digest::Sha256;
use ah_verity::{
    BLOCK_BYTES, Superblock, SuperblockError, TreeBuilder, VerityError, VerityInfo, check_block,
};
use ah_verity_sys::LeafHasher;

/// Why a stored image is not the one that its record names.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The image could not be read.
    #[error("layer image not read")]
    Read(#[from] io::Error),
    /// The record is not valid.
    #[error("layer image record is not valid")]
    Record(#[source] serde_json::Error),
    /// The record is about another image, or contradicts itself.
    #[error("layer image record does not fit its image")]
    Inconsistent,
    /// Parameters are out of range.
    #[error("layer image parameters are not acceptable")]
    Parameters(#[from] VerityError),
    /// The file has another length.
    #[error("layer image has a wrong length: found {found} bytes, expected {expected}")]
    Length {
        /// Length found.
        found: u64,
        /// Length expected.
        expected: u64,
    },
    /// The dm-verity superblock is another.
    #[error("layer image superblock is not acceptable")]
    Superblock(#[from] SuperblockError),
    /// A data block or a block of the tree does not lead to the root hash.
    #[error("layer image block {block} does not belong to root hash {root_hash}")]
    Block {
        /// The data block.
        block: u64,
        /// The root hash.
        root_hash: Sha256,
    },
    /// The data has another root hash.
    #[error("layer image has another root hash: found {found}, expected {expected}")]
    RootHash {
        /// Root hash of the data.
        found: Sha256,
        /// Root hash of the record.
        expected: Sha256,
    },
    /// The tree is not that of the data.
    #[error("layer image hash tree differs from its data's")]
    Tree,
}

/// What is checked on every use: length, superblock, and the first and last data block with their paths to the root. It
/// finds files that were cut, mixed up or half written, not every changed byte.
pub(crate) fn quick(file: &File, info: &VerityInfo) -> Result<(), CheckError> {
    let (found, expected) = (file.metadata()?.len(), info.image_bytes());
    if found != expected {
        return Err(CheckError::Length { found, expected });
    }
    superblock(file, info)?;
    for block in [0, info.data_blocks.saturating_sub(1)] {
        if !check_block(info, block, |number| read_block(file, number)) {
            return Err(CheckError::Block { block, root_hash: info.root_hash });
        }
    }
    Ok(())
}

/// Hashes the whole image again.
pub(crate) fn full(file: &File, info: &VerityInfo) -> Result<(), CheckError> {
    quick(file, info)?;
    let mut builder = TreeBuilder::new(info.salt);
    let hasher = LeafHasher::new(info.salt);
    let mut leaves = Vec::new();
    let mut buffer = vec![0; 256 * BLOCK_BYTES];
    let mut offset = 0;
    let end = info.hash_offset_bytes();
    while offset < end {
        let length = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let part = &mut buffer[..length];
        file.read_exact_at(part, offset)?;
        hasher.hash(part.as_chunks().0, &mut leaves);
        builder.push_hashes(&leaves);
        offset += length as u64;
    }
    let tree = builder.finish()?;
    if tree.info() != *info {
        let (found, expected) = (tree.info().root_hash, info.root_hash);
        return Err(CheckError::RootHash { found, expected });
    }
    let mut offset = end + BLOCK_BYTES as u64;
    for level in tree.levels() {
        let mut stored = vec![0; level.len()];
        file.read_exact_at(&mut stored, offset)?;
        if stored != level {
            return Err(CheckError::Tree);
        }
        offset += level.len() as u64;
    }
    Ok(())
}

fn superblock(file: &File, info: &VerityInfo) -> Result<(), CheckError> {
    let mut block = [0; BLOCK_BYTES];
    file.read_exact_at(&mut block, info.hash_offset_bytes())?;
    let found = Superblock::parse(&block)?;
    if found == Superblock::of(info) { Ok(()) } else { Err(CheckError::Inconsistent) }
}

fn read_block(file: &File, number: u64) -> Option<[u8; BLOCK_BYTES]> {
    let mut block = [0; BLOCK_BYTES];
    file.read_exact_at(&mut block, number.checked_mul(BLOCK_BYTES as u64)?).ok()?;
    Some(block)
}

/// Longest record, bytes.
const MAX_RECORD_BYTES: u64 = 4096;

pub(crate) fn read_record(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_RECORD_BYTES).read_to_end(&mut text)?;
    Ok(text)
}
