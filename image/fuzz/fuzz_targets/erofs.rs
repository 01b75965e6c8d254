//! Invariant: no image makes the reader panic or loop, and what it accepts it can list and read up to a limit.
#![no_main]

use ah_erofs::{FileKind, Image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::open(bytes.to_vec()) else { return };
    let _ = image.lookup(b"etc/passwd");
    for (_, inode) in image.walk().unwrap_or_default() {
        if inode.kind == FileKind::File {
            let read = image.read_file(&inode, 1 << 20);
            assert!(read.is_err() || read.is_ok_and(|data| data.len() as u64 == inode.size));
        }
    }
});
