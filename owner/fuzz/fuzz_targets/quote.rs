//! Invariant: a quote that is read says what its bytes say at the places of the format (Intel TDX DCAP quote, versions 4 and 5), is read
//! again from its own bytes to the same, and does not verify without collateral.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use ah_evidence::RawQuote;
use ah_verifier::{QuoteCollateral, verify_quote};
use libfuzzer_sys::fuzz_target;

/// Length of the head; version 5 has the kind and length of its body behind it.
const HEAD: usize = 48;
const EMPTY: &[u8] = br#"{"pck_crl_issuer_chain":"","root_ca_crl":"","pck_crl":"","tcb_info_issuer_chain":"","tcb_info":"",
"tcb_info_signature":"","qe_identity_issuer_chain":"","qe_identity":"","qe_identity_signature":""}"#;

fuzz_target!(|bytes: &[u8]| {
    let Ok(quote) = RawQuote::read(bytes) else { return };
    let (raw, view) = (quote.as_bytes(), quote.view());
    assert_eq!(u16::from_le_bytes([raw[0], raw[1]]), view.version);
    let body = match view.version {
        4 => HEAD,
        5 => HEAD + 6,
        other => panic!("version {other} is read"),
    };
    let at = |from: usize, length: usize| &raw[body + from..body + from + length];
    let report = &view.report;
    assert_eq!(at(0, 16), report.tee_tcb_svn);
    assert_eq!(at(120, 8), report.td_attributes.0.to_le_bytes());
    assert_eq!(at(136, 48), report.mr_td.as_bytes());
    for (number, rtmr) in report.rtmr.iter().enumerate() {
        assert_eq!(at(328 + number * 48, 48), rtmr.as_bytes());
    }
    assert_eq!(at(520, 64), report.report_data.as_bytes());
    let again = RawQuote::parse(raw).expect("what was read is read again");
    assert_eq!((again.as_bytes(), again.view()), (raw, view));

    let collateral = QuoteCollateral::from_json(EMPTY).expect("a document without contents");
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert!(verify_quote(&quote, &collateral, now).is_err());
});
