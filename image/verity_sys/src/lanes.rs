//! SHA-256 of several messages of one length, in step, with the SHA extensions of x86-64.
//!
//! Sources: FIPS 180-4, sections 4.2.2, 5.3.3 and 6.2.2; Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2 (how they hold the eight words in two registers).

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use ah_verity::{BLOCK_BYTES, Block};

use crate::Leaf;

/// Messages in step: more than the registers hold, yet faster than two or three (Zen 4: 1.75 times one by one, two 1.4).
pub(crate) const LANES: usize = 4;
const SALT_BYTES: usize = 32;
/// A message: salt and block.
const MESSAGE_BITS: u64 = 8 * (SALT_BYTES + BLOCK_BYTES) as u64;

/// Bytes that one compression takes.
type Part = [u8; 64];

/// FIPS 180-4, section 4.2.2.
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];
/// FIPS 180-4, section 5.3.3.
#[rustfmt::skip]
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

/// Stands for a processor that has the instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes {
    salt: [u8; SALT_BYTES],
}

impl Lanes {
    /// `None` when the processor lacks one of the instructions.
    pub(crate) fn detect(salt: [u8; SALT_BYTES]) -> Option<Self> {
        let found = is_x86_feature_detected!("sha") && is_x86_feature_detected!("avx");
        found.then_some(Self { salt })
    }

    /// Hashes four at a time, and what is left over by `one`.
    pub(crate) fn hash<'a>(
        self,
        to_hash: &mut dyn Iterator<Item = (&'a mut Leaf, &'a Block)>,
        one: impl Fn(&Block) -> Leaf,
    ) {
        loop {
            let next: [_; LANES] = std::array::from_fn(|_| to_hash.next());
            match next {
                [Some(a), Some(b), Some(c), Some(d)] => {
                    // SAFETY: `detect`, the only maker of this value, found all features that the function is made for.
                    let hashes = unsafe { leaves(&self.salt, [a.1, b.1, c.1, d.1]) };
                    [*a.0, *b.0, *c.0, *d.0] = hashes;
                }
                rest => {
                    return rest.into_iter().flatten().for_each(|(leaf, block)| *leaf = one(block));
                }
            }
        }
    }
}

/// The eight words of a hash under way, highest first.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

#[target_feature(enable = "sha,avx")]
fn leaves<const N: usize>(salt: &[u8; SALT_BYTES], blocks: [&Block; N]) -> [Leaf; N] {
    let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
    let initial = State { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) };
    let mut states = [initial; N];
    // The salt is half a part, so the first and the last part lie across an end of the block.
    let firsts = blocks.map(|block| halves(salt, block.first_chunk().unwrap_or(salt)));
    compress(&mut states, firsts.each_ref());
    let inner = blocks.map(|block| block[SALT_BYTES..].as_chunks::<64>().0);
    for at in 0..BLOCK_BYTES / 64 - 1 {
        compress(&mut states, inner.map(|parts| &parts[at]));
    }
    let lasts = blocks.map(|block| halves(block.last_chunk().unwrap_or(salt), &padding()));
    compress(&mut states, lasts.each_ref());
    states.map(|state| words(state))
}

fn halves(first: &[u8; 32], second: &[u8; 32]) -> Part {
    let mut part = [0; 64];
    part[..32].copy_from_slice(first);
    part[32..].copy_from_slice(second);
    part
}

/// The end of the last part. FIPS 180-4, section 5.1.1.
fn padding() -> [u8; 32] {
    let mut padding = [0; 32];
    padding[0] = 0x80;
    padding[24..].copy_from_slice(&MESSAGE_BITS.to_be_bytes());
    padding
}

/// One part of each message.
#[inline]
#[target_feature(enable = "sha,avx")]
fn compress<const N: usize>(states: &mut [State; N], parts: [&Part; N]) {
    let before = *states;
    // The last sixteen words of each message's schedule, four in a register, as a ring.
    let mut schedules = [[_mm_setzero_si128(); 4]; N];
    for (round, k) in K.as_chunks::<4>().0.iter().enumerate() {
        let [k0, k1, k2, k3] = k.map(u32::cast_signed);
        let k = _mm_set_epi32(k3, k2, k1, k0);
        for ((state, schedule), part) in states.iter_mut().zip(&mut schedules).zip(parts) {
            let at = round % 4;
            schedule[at] = match part.as_chunks::<16>().0.get(round) {
                Some(words) => load(words),
                None => scheduled(schedule, at),
            };
            let added = _mm_add_epi32(schedule[at], k);
            state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, added);
            let upper = _mm_shuffle_epi32(added, 0b00_00_11_10);
            state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, upper);
        }
    }
    for (state, before) in states.iter_mut().zip(before) {
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }
}

/// Four words, whose bytes are the highest first in a message.
#[inline]
#[target_feature(enable = "sha,avx")]
fn load(words: &[u8; 16]) -> __m128i {
    let [low, high] = [0, 8].map(|at| {
        let half = words[at..].first_chunk().copied().unwrap_or_default();
        i64::from_le_bytes(half)
    });
    let swapped = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    _mm_shuffle_epi8(_mm_set_epi64x(high, low), swapped)
}

/// The next four words of a schedule, in place of the oldest, which are at `at`.
#[inline]
#[target_feature(enable = "sha,avx")]
fn scheduled(ring: &[__m128i; 4], at: usize) -> __m128i {
    let [oldest, second, third, newest] = [0, 1, 2, 3].map(|age| ring[(at + age) % 4]);
    let sums = _mm_sha256msg1_epu32(oldest, second);
    _mm_sha256msg2_epu32(_mm_add_epi32(sums, _mm_alignr_epi8(newest, third, 4)), newest)
}

#[inline]
#[target_feature(enable = "sha,avx")]
fn words(State { abef, cdgh }: State) -> Leaf {
    let words = [
        _mm_extract_epi32(abef, 3),
        _mm_extract_epi32(abef, 2),
        _mm_extract_epi32(cdgh, 3),
        _mm_extract_epi32(cdgh, 2),
        _mm_extract_epi32(abef, 1),
        _mm_extract_epi32(abef, 0),
        _mm_extract_epi32(cdgh, 1),
        _mm_extract_epi32(cdgh, 0),
    ];
    let mut leaf = [0; 32];
    for (bytes, word) in leaf.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    leaf
}
