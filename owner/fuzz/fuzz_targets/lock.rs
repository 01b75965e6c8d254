//! A text as a lock file of images.
//!
//! Invariant: reading never panics; what is read is written as a text that reads as the same.
#![no_main]

use ah_registry::LockFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(lock) = LockFile::parse(text) else { return };
    let written = lock.to_text();
    let again = LockFile::parse(&written).expect("what was written is read");
    assert_eq!(again, lock);
    assert_eq!(again.to_text(), written);
});
