//! Invariant: THIM JSON and certificates in any form are read without a panic, and a document is for one TCB only.
#![no_main]

use ah_collateral::{Certificates, ThimCertificates};
use ah_evidence::TcbVersion;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut certificates = Certificates::default();
    let _ = certificates.add_form(bytes, "input");
    if let Ok(thim) = ThimCertificates::parse(bytes) {
        // A document is for at most the one TCB, in either byte order.
        let palindrome = thim.is_for(TcbVersion(1)) && thim.is_for(TcbVersion(2));
        assert!(!palindrome);
    }
});
