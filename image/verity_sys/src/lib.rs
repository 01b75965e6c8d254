//! Hashes of dm-verity's data blocks, four at a time where the processor has SHA instructions; the one unsafe call of images.
//!
//! One SHA-256 waits for itself: each of its instructions needs the one before. Blocks of a hash tree do not depend on
//! each other, so the instructions of four of them fill each other's waiting. What comes out is what
//! [`ah_verity::TreeBuilder::push_blocks`] makes of the same blocks, and a test says so of both ways.

#[cfg(target_arch = "x86_64")]
mod lanes;

use ah_verity::{BLOCK_BYTES, Block};
use sha2::Digest as _;

/// A leaf of the hash tree: SHA-256 of the salt and a block.
pub type Leaf = [u8; 32];

const ZERO_BLOCK: Block = [0; BLOCK_BYTES];

/// Hashes blocks under one salt.
#[derive(Debug)]
pub struct LeafHasher {
    salted: sha2::Sha256,
    zero: Leaf,
    #[cfg(target_arch = "x86_64")]
    lanes: Option<lanes::Lanes>,
}

impl LeafHasher {
    /// The fastest way that this processor has.
    pub fn new(salt: [u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        let lanes = lanes::Lanes::detect(salt);
        Self {
            #[cfg(target_arch = "x86_64")]
            lanes,
            ..Self::one_by_one(salt)
        }
    }

    /// The way that every processor has: the reference for [`LeafHasher::new`].
    pub fn one_by_one(salt: [u8; 32]) -> Self {
        let salted = sha2::Sha256::new_with_prefix(salt);
        let zero = salted.clone().chain_update(ZERO_BLOCK).finalize().into();
        Self {
            salted,
            zero,
            #[cfg(target_arch = "x86_64")]
            lanes: None,
        }
    }

    /// How many blocks are hashed in step.
    pub fn in_step(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.lanes.is_some() {
            return lanes::LANES;
        }
        1
    }

    /// The leaves of `blocks`, in their order, in place of what `leaves` held.
    pub fn hash(&self, blocks: &[Block], leaves: &mut Vec<Leaf>) {
        leaves.clear();
        leaves.resize(blocks.len(), self.zero);
        let mut to_hash = leaves.iter_mut().zip(blocks).filter(|(_, block)| **block != ZERO_BLOCK);
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = &self.lanes {
            lanes.hash(&mut to_hash, |block| self.one(block));
            return;
        }
        to_hash.for_each(|(leaf, block)| *leaf = self.one(block));
    }

    fn one(&self, block: &Block) -> Leaf {
        self.salted.clone().chain_update(block).finalize().into()
    }
}
