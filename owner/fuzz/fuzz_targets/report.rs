//! Invariant: a report that parses encodes to the very bytes it came from, so nothing in it is unread.
#![no_main]

use ah_evidence::{RawReport, SnpReport};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(raw) = RawReport::try_from(bytes) else { return };
    let Ok(report) = SnpReport::parse(&raw) else { return };
    let signature = raw.signature().expect("parsing looks at the signature too");
    assert_eq!(RawReport::assemble(&report.signed_bytes(), &signature), raw);
});
