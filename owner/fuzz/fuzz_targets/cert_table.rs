//! Invariant: a table that decodes, decodes to the same certificates from its own encoding, and holds no kind twice.
#![no_main]

use ah_evidence::CertTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = CertTable::decode(bytes) else { return };
    assert_eq!(CertTable::decode(&table.encode()).as_ref(), Ok(&table));
    for (kind, der) in table.entries() {
        assert_eq!(table.certificate(*kind), Some(der.as_slice()));
    }
});
