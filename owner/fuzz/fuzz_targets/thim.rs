//! Invariant: a THIM document that is read is for the TCB that its own `tcbm` says, in either byte order, and for no other; certificates
//! that are read in one form are read again in another to the same collateral.
#![no_main]

use ah_collateral::{Certificates, ThimCertificates};
use ah_evidence::TcbVersion;
use ah_verifier::Revocation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(thim) = ThimCertificates::parse(bytes) {
        is_for_its_own_tcb(&thim, bytes);
    }
    let unseen = || Revocation::NotChecked { reason: "fuzz".to_owned() };
    let mut certificates = Certificates::default();
    if certificates.add_form(bytes, "input").is_err() {
        return;
    }
    if let Ok(first) = certificates.collateral(unseen()) {
        let mut again = Certificates::default();
        for der in [&first.endorsement, &first.intermediate, &first.root] {
            again.add(der).expect("a certificate that was read");
        }
        let again = again.collateral(unseen()).expect("the same three certificates");
        assert_eq!(
            (again.endorsement, again.intermediate, again.root),
            (first.endorsement, first.intermediate, first.root)
        );
    }
});

fn is_for_its_own_tcb(thim: &ThimCertificates, bytes: &[u8]) {
    // Members that nobody knows are passed over, even where their texts are not Unicode; such a document is no value here.
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let text = document["tcbm"].as_str().expect("a text");
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    let Some(number) = number else {
        for tcb in [0, 1, u64::MAX] {
            assert!(!thim.is_for(TcbVersion(tcb)), "{text:?} is no TCB");
        }
        return;
    };
    assert!(thim.is_for(TcbVersion(number)) && thim.is_for(TcbVersion(number.swap_bytes())));
    for bit in 0..64 {
        let other = number ^ (1 << bit);
        let same = other == number.swap_bytes();
        assert_eq!(thim.is_for(TcbVersion(other)), same, "{text} is not {other:016x}");
    }
}
