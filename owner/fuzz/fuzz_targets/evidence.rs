//! Invariant: evidence that is read is written and read again as the same, and holds a report of its label's form.
#![no_main]

use ah_evidence::{Evidence, Tee};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(evidence) = Evidence::from_json(json) else { return };
    let written = evidence.to_json().expect("what was read can be written");
    assert_eq!(Evidence::from_json(written.as_bytes()).expect("and read again"), evidence);
    match evidence.tee {
        Tee::Snp | Tee::Software => {
            drop(evidence.snp_report().expect("read evidence has a report"))
        }
        Tee::Tdx => drop(evidence.tdx_quote().expect("read evidence has a quote")),
    }
});
