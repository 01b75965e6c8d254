//! Invariant: no quote that the fuzzer can make verifies, and none makes the two parsers or the verifier panic.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use ah_evidence::RawQuote;
use ah_verifier::{QuoteCollateral, verify_quote};
use libfuzzer_sys::fuzz_target;

const EMPTY: &[u8] = br#"{"pck_crl_issuer_chain":"","root_ca_crl":"","pck_crl":"","tcb_info_issuer_chain":"","tcb_info":"",
"tcb_info_signature":"","qe_identity_issuer_chain":"","qe_identity":"","qe_identity_signature":""}"#;

fuzz_target!(|bytes: &[u8]| {
    let Ok(quote) = RawQuote::read(bytes) else { return };
    let collateral = QuoteCollateral::from_json(EMPTY).expect("a document without contents");
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert!(verify_quote(&quote, &collateral, now).is_err());
});
