//! Invariant: what is read is written back to the same bytes.
#![no_main]

use ah_verity::Superblock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(superblock) = Superblock::parse(bytes) {
        assert_eq!(&superblock.encode()[..], bytes);
    }
});
