//! Both ways of hashing give what the hash tree's only definition gives.

use ah_verity::{BLOCK_BYTES, Block, TreeBuilder};
use ah_verity_sys::LeafHasher;
use proptest::prelude::*;

/// The tree by each way; all must be the one that `model/verity` builds.
fn check(salt: [u8; 32], blocks: &[Block]) {
    let mut expected = TreeBuilder::new(salt);
    expected.push_blocks(blocks.as_flattened());
    let expected = expected.finish().unwrap();
    for hasher in [LeafHasher::new(salt), LeafHasher::one_by_one(salt)] {
        let mut leaves = vec![[1; 32]];
        hasher.hash(blocks, &mut leaves);
        let mut found = TreeBuilder::new(salt);
        found.push_hashes(&leaves);
        assert_eq!(found.finish().unwrap(), expected, "{hasher:?}");
    }
}

fn block(seed: u64) -> Block {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
}

proptest! {
    /// Any number of blocks, some of them zero, under any salt.
    #[test]
    fn leaves_are_those_of_the_tree(
        salt: [u8; 32],
        seeds in prop::collection::vec(prop::option::of(any::<u64>()), 1..14),
    ) {
        let blocks: Vec<Block> =
            seeds.iter().map(|seed| seed.map_or([0; BLOCK_BYTES], block)).collect();
        check(salt, &blocks);
    }
}

#[test]
fn every_place_of_a_block_counts() {
    if LeafHasher::new([0; 32]).in_step() == 1 {
        println!(
            "skipped: this processor has no SHA instructions, so blocks are hashed one by one only"
        );
    }
    let mut blocks = vec![[0; BLOCK_BYTES]; 4];
    for (bit, place) in [0, 31, 32, 63, 64, 2048, 4031, 4032, 4063, 4064, 4095].iter().enumerate() {
        for block in &mut blocks {
            block[*place] = 1 << (bit % 8);
        }
        check([bit as u8; 32], &blocks);
    }
}
