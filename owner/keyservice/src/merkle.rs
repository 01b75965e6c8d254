//! The Merkle tree of RFC 9162 section 2.1 with SHA-256: hashes, growth, proofs and their checks. Pure.

use std::ops::Range;

use ah_digest::Sha256;

/// A perfect subtree: `2^level` leaves from `index * 2^level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Height above the leaves.
    pub level: u32,
    /// Number of the subtree within its level.
    pub index: u64,
}

/// Hash of a leaf, section 2.1.1.
pub fn leaf_hash(entry: &[u8]) -> Sha256 {
    Sha256::of([&[0], entry].concat())
}

/// Hash of an inner node, section 2.1.1.
pub fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    Sha256::of([&[1], left.as_bytes().as_slice(), right.as_bytes()].concat())
}

/// A tree as what is needed to add to it: the roots of its perfect subtrees, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Sha256>,
}

impl Frontier {
    /// A tree from its parts; `None` when there is another number of peaks than a tree of this size has.
    pub fn new(size: u64, peaks: Vec<Sha256>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(peaks.len())).then_some(Self { size, peaks })
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, the largest first.
    pub fn peaks(&self) -> &[Sha256] {
        &self.peaks
    }

    /// Adds a leaf; gives every perfect subtree that this completes, the leaf itself first.
    pub fn push(&mut self, leaf: Sha256) -> Vec<(Place, Sha256)> {
        let mut made = vec![(Place { level: 0, index: self.size }, leaf)];
        let (mut hash, mut rest, mut level) = (leaf, self.size, 0u32);
        while rest & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            rest >>= 1;
            level += 1;
            made.push((Place { level, index: rest }, hash));
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
        made
    }

    /// The tree's root; that of no leaves is the hash of nothing.
    pub fn root(&self) -> Sha256 {
        fold(&self.peaks)
    }
}

/// The root over perfect subtrees that stand side by side, the largest first.
pub fn fold(peaks: &[Sha256]) -> Sha256 {
    let mut peaks = peaks.iter().rev();
    let Some(last) = peaks.next() else { return Sha256::of([]) };
    peaks.fold(*last, |right, left| node_hash(left, &right))
}

/// The perfect subtrees that make up `leaves`, which begin at a multiple of the largest one's size.
pub fn perfect_subtrees(leaves: Range<u64>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut start = leaves.start;
    while start < leaves.end {
        let level = (leaves.end - start).ilog2();
        places.push(Place { level, index: start >> level });
        start += 1 << level;
    }
    places
}

/// Leaves whose hashes, in this order, prove that leaf `index` is in the tree of `size` leaves (section 2.1.3.1).
pub fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut low, mut high) = (0, size);
    let mut ranges = Vec::new();
    while high.saturating_sub(low) > 1 {
        let split = low + largest_power_below(high - low);
        if index < split {
            ranges.push(split..high);
            high = split;
        } else {
            ranges.push(low..split);
            low = split;
        }
    }
    ranges.reverse();
    ranges
}

/// Leaves whose hashes, in this order, prove that the tree of `old` leaves is the beginning of that of `new` (section 2.1.4.1).
pub fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let (mut low, mut high, mut whole) = (0, new, true);
    let mut ranges = Vec::new();
    if old == 0 || old >= new {
        return ranges;
    }
    while old < high {
        let split = low + largest_power_below(high - low);
        if old <= split {
            ranges.push(split..high);
            high = split;
        } else {
            ranges.push(low..split);
            low = split;
            whole = false;
        }
    }
    if !whole {
        ranges.push(low..high);
    }
    ranges.reverse();
    ranges
}

/// For `count` of at least 2, the largest power of two below it.
fn largest_power_below(count: u64) -> u64 {
    1 << count.saturating_sub(1).max(1).ilog2()
}

/// Whether `proof` shows that `leaf` is number `index` of a tree of `size` leaves with this root (section 2.1.3.2).
pub fn includes(root: &Sha256, size: u64, index: u64, leaf: &Sha256, proof: &[Sha256]) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree `new` begins with the tree `old`, each given by size and root (section 2.1.4.2).
pub fn extends(old: (u64, &Sha256), new: (u64, &Sha256), proof: &[Sha256]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size >= new_size {
        let same = old_size == new_size && old_root == new_root;
        let from_nothing = old_size == 0 && *old_root == Sha256::of([]);
        return proof.is_empty() && (same || (from_nothing && old_size < new_size));
    }
    let first = if old_size.is_power_of_two() { Some(*old_root) } else { None };
    let mut path = first.iter().chain(proof);
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let Some(seed) = path.next() else { return false };
    let (mut of_old, mut of_new) = (*seed, *seed);
    for hash in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            of_old = node_hash(hash, &of_old);
            of_new = node_hash(hash, &of_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node_hash(&of_new, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *new_root
}

#[cfg(test)]
#[path = "merkle_tests.rs"]
mod tests;
