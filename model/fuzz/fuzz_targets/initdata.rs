//! Bytes of the host as an initdata disk, as an annotation, and as the document itself.
//!
//! Invariant: reading never panics; what reads keeps its bytes, and is the same after every form it can be written in.
#![no_main]

use ah_policy::InitData;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let read = [InitData::from_disk(data), InitData::from_annotation(text), InitData::parse(data)];
    for document in read.into_iter().flatten() {
        assert_eq!(InitData::parse(document.bytes()).as_ref(), Ok(&document));
        assert_eq!(InitData::from_disk(&document.to_disk()).as_ref(), Ok(&document));
        assert_eq!(InitData::from_annotation(&document.to_annotation()).as_ref(), Ok(&document));
        let _ = document.guest_settings();
    }
});
