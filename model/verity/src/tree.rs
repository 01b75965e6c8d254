use ah_digest::Sha256;
use sha2::Digest as _;

use crate::{BLOCK_BYTES, Block, HASHES_PER_BLOCK, MAX_DATA_BLOCKS, VerityError, VerityInfo};

const HASH_BYTES: usize = 32;
const ZERO_BLOCK: Block = [0; BLOCK_BYTES];

/// Builds a hash tree from data blocks that are given in order. Holds 32 bytes for each data block.
#[derive(Debug)]
pub struct TreeBuilder {
    salt: [u8; 32],
    salted: sha2::Sha256,
    zero_hash: [u8; HASH_BYTES],
    leaves: Vec<u8>,
    deferred: bool,
}

/// A finished hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    info: VerityInfo,
    /// Level 0 (hashes of data) first; each padded to whole blocks.
    levels: Vec<Vec<u8>>,
}

impl TreeBuilder {
    /// An empty tree under `salt`.
    pub fn new(salt: [u8; 32]) -> Self {
        let salted = sha2::Sha256::new_with_prefix(salt);
        let zero_hash = salted.clone().chain_update(ZERO_BLOCK).finalize().into();
        Self { salt, salted, zero_hash, leaves: Vec::new(), deferred: false }
    }

    /// Leaves room for block 0, which is given at the end by [`TreeBuilder::finish_with_first`]: a file system's
    /// superblock is known last. Only before the first block.
    pub fn defer_first(&mut self) {
        if self.leaves.is_empty() {
            self.leaves.extend([0; HASH_BYTES]);
            self.deferred = true;
        }
    }

    /// Hashes the next data block.
    pub fn push(&mut self, block: &Block) {
        let hash = self.hash(block);
        self.leaves.extend(hash);
    }

    /// Hashes whole blocks in order; bytes behind the last whole block are not taken, and returned.
    pub fn push_blocks<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let (blocks, rest) = data.as_chunks();
        blocks.iter().for_each(|block| self.push(block));
        rest
    }

    /// Takes the hashes of the next data blocks, each SHA-256 of salt and block, from one who made them faster.
    pub fn push_hashes(&mut self, hashes: &[[u8; HASH_BYTES]]) {
        self.leaves.extend_from_slice(hashes.as_flattened());
    }

    /// Data blocks so far, a deferred one counted.
    pub fn data_blocks(&self) -> u64 {
        (self.leaves.len() / HASH_BYTES) as u64
    }

    /// Hashes the levels above.
    ///
    /// # Errors
    /// [`VerityError`] when there are no blocks, too many, or the deferred first one was never given.
    pub fn finish(self) -> Result<Tree, VerityError> {
        let found = self.data_blocks();
        if self.deferred {
            return Err(VerityError::Incomplete {
                found: found.saturating_sub(1),
                expected: found,
            });
        }
        self.build()
    }

    /// As [`TreeBuilder::finish`], with the deferred block 0.
    ///
    /// # Errors
    /// As [`TreeBuilder::finish`]; also when no block was deferred.
    pub fn finish_with_first(mut self, block: &Block) -> Result<Tree, VerityError> {
        let hash = self.hash(block);
        let found = self.data_blocks();
        match self.leaves.first_chunk_mut() {
            Some(leaf) if self.deferred => *leaf = hash,
            _ => {
                return Err(VerityError::Incomplete { found, expected: found.saturating_add(1) });
            }
        }
        self.build()
    }

    fn build(mut self) -> Result<Tree, VerityError> {
        let data_blocks = self.data_blocks();
        if !(1..=MAX_DATA_BLOCKS).contains(&data_blocks) {
            return Err(VerityError::DataBlocks { found: data_blocks });
        }
        let mut hashes = std::mem::take(&mut self.leaves);
        let mut levels = Vec::new();
        while hashes.len() > HASH_BYTES {
            hashes.resize(hashes.len().next_multiple_of(BLOCK_BYTES), 0);
            let (blocks, _) = hashes.as_chunks();
            let above = blocks.iter().flat_map(|block| self.hash(block)).collect();
            levels.push(std::mem::replace(&mut hashes, above));
        }
        let root = hashes.first_chunk().copied().unwrap_or_default();
        let info = VerityInfo { root_hash: Sha256::new(root), data_blocks, salt: self.salt };
        Ok(Tree { info, levels })
    }

    fn hash(&self, block: &Block) -> [u8; HASH_BYTES] {
        if *block == ZERO_BLOCK {
            return self.zero_hash;
        }
        self.salted.clone().chain_update(block).finalize().into()
    }
}

impl Tree {
    /// Root hash, block count and salt.
    pub fn info(&self) -> VerityInfo {
        self.info
    }

    /// The tree's bytes as they follow the superblock: top level first, level 0 last. Whole blocks.
    pub fn levels(&self) -> impl Iterator<Item = &[u8]> {
        self.levels.iter().rev().map(Vec::as_slice)
    }
}

/// One level of a tree, as it lies behind the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// First block, counted from the tree's start.
    pub(crate) start: u64,
    /// Blocks in this level.
    pub(crate) blocks: u64,
}

/// Levels of the tree over `data_blocks`, level 0 first.
pub(crate) fn levels(data_blocks: u64) -> Vec<Level> {
    let mut levels = Vec::new();
    let mut hashes = data_blocks;
    while hashes > 1 {
        hashes = hashes.div_ceil(HASHES_PER_BLOCK);
        levels.push(Level { start: 0, blocks: hashes });
    }
    let mut start = 0u64;
    for level in levels.iter_mut().rev() {
        level.start = start;
        start = start.saturating_add(level.blocks);
    }
    levels
}

/// Whether data block `index` of an image belongs under `info`'s root hash: what the kernel does for one read.
///
/// `read_block` gives a block of the image by its number (tree blocks follow the superblock); `None` fails the check.
pub fn check_block(
    info: &VerityInfo,
    index: u64,
    mut read_block: impl FnMut(u64) -> Option<Block>,
) -> bool {
    let hasher = TreeBuilder::new(info.salt);
    if index >= info.data_blocks {
        return false;
    }
    let Some(data) = read_block(index) else { return false };
    let mut hash = hasher.hash(&data);
    let mut index = index;
    for level in levels(info.data_blocks) {
        let slot = index % HASHES_PER_BLOCK;
        index /= HASHES_PER_BLOCK;
        let number = info.hash_start_block().saturating_add(level.start).saturating_add(index);
        let Some(block) = read_block(number) else { return false };
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        if block.as_chunks().0.get(slot) != Some(&hash) {
            return false;
        }
        hash = hasher.hash(&block);
    }
    Sha256::new(hash) == info.root_hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(blocks: &[u8]) -> Tree {
        let mut builder = TreeBuilder::new([0; 32]);
        assert!(builder.push_blocks(blocks).is_empty());
        builder.finish().unwrap()
    }

    fn image(data: &[u8], tree: &Tree) -> Vec<u8> {
        let superblock = crate::Superblock::of(&tree.info()).encode();
        let parts: Vec<&[u8]> = [data, &superblock].into_iter().chain(tree.levels()).collect();
        parts.concat()
    }

    fn block_of(image: &[u8], number: u64) -> Option<Block> {
        image.as_chunks().0.get(number as usize).copied()
    }

    fn sample(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK_BYTES).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[test]
    fn levels_lie_top_first() {
        assert_eq!(levels(1), []);
        assert_eq!(levels(128), [Level { start: 0, blocks: 1 }]);
        let two = [Level { start: 1, blocks: 2 }, Level { start: 0, blocks: 1 }];
        assert_eq!(levels(129), two);
        assert_eq!(levels(128 * 128 + 1).len(), 3);
    }

    #[test]
    fn one_block_is_its_own_root() {
        let tree = build(&[0; BLOCK_BYTES]);
        assert_eq!(tree.info().root_hash, Sha256::of([0; 32 + BLOCK_BYTES]));
        assert_eq!(tree.levels().count(), 0);
    }

    #[test]
    fn a_deferred_first_block_gives_the_same_tree() {
        let data = sample(130);
        let mut builder = TreeBuilder::new([0; 32]);
        builder.defer_first();
        builder.push_blocks(&data[BLOCK_BYTES..]);
        let first = data.first_chunk().unwrap();
        assert_eq!(builder.finish_with_first(first).unwrap(), build(&data));
    }

    #[test]
    fn a_deferred_block_must_come() {
        let mut builder = TreeBuilder::new([0; 32]);
        builder.defer_first();
        builder.push(&ZERO_BLOCK);
        assert_eq!(builder.finish(), Err(VerityError::Incomplete { found: 1, expected: 2 }));
        assert_eq!(TreeBuilder::new([0; 32]).finish(), Err(VerityError::DataBlocks { found: 0 }));
        assert_eq!(
            TreeBuilder::new([0; 32]).finish_with_first(&ZERO_BLOCK),
            Err(VerityError::Incomplete { found: 0, expected: 1 })
        );
    }

    #[test]
    fn attack_flipped_byte_fails_its_block() {
        let data = sample(200);
        let tree = build(&data);
        let good = image(&data, &tree);
        assert_eq!(good.len() as u64, tree.info().image_bytes());
        assert!((0..200).all(|i| check_block(&tree.info(), i, |n| block_of(&good, n))));
        assert!(!check_block(&tree.info(), 200, |n| block_of(&good, n)));
        let mut bad = good.clone();
        bad[150 * BLOCK_BYTES + 9] ^= 1;
        assert!(!check_block(&tree.info(), 150, |n| block_of(&bad, n)));
        assert!(check_block(&tree.info(), 151, |n| block_of(&bad, n)));
    }

    #[test]
    fn attack_altered_hash_tree_fails_what_lies_under_it() {
        let data = sample(200);
        let tree = build(&data);
        let good = image(&data, &tree);
        for tree_block in 0..3 {
            let mut bad = good.clone();
            bad[(201 + tree_block) * BLOCK_BYTES] ^= 1;
            let whole = (0..200).all(|i| check_block(&tree.info(), i, |n| block_of(&bad, n)));
            assert!(!whole, "tree block {tree_block}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_changed_bit_changes_the_root(blocks in 1usize..300, at in any::<prop::sample::Index>()) {
            let data = sample(blocks);
            let mut other = data.clone();
            other[at.index(data.len())] ^= 0x40;
            prop_assert_ne!(build(&data).info().root_hash, build(&other).info().root_hash);
        }
    }
}
