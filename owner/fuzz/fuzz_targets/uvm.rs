//! Invariant: what is made of a genuine COSE message by changing bytes of it is refused, or says the very same; what is anything else is
//! refused. (`fixtures/endorsement.cose` is signed by a chain of its own, made with openssl for this; nobody has its keys.)
#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_reference::{UvmIssuer, verify_uvm};
use libfuzzer_sys::fuzz_target;

const GENUINE: &[u8] = include_bytes!("../fixtures/endorsement.cose");
const ISSUER: &str = "did:x509:0:sha256:i27KPKqk_bJLs_Zx_PWvMu3Hm7Jna1trdDmkHjo02ew::eku:1.2.3.4.5";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(4_000_000_000)
}

/// Each three bytes of the input change one byte of the message; an input that begins with 0 stands for itself.
fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = bytes.split_first()?;
    if *kind == 0 {
        return Some(rest.to_vec());
    }
    let mut message = GENUINE.to_vec();
    for change in rest.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]]));
        match message.get_mut(place) {
            Some(byte) => *byte ^= change[2],
            None => message.truncate(place % GENUINE.len()),
        }
    }
    Some(message)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(message) = message(bytes) else { return };
    let issuer = [UvmIssuer::new(ISSUER, "Feed", 7).expect("a constant")];
    let Ok(found) = verify_uvm(&message, &issuer, now()) else {
        assert_ne!(message, GENUINE, "the genuine message is believed");
        return;
    };
    let genuine = verify_uvm(GENUINE, &issuer, now()).expect("the genuine message is believed");
    assert_eq!(message.len(), GENUINE.len(), "nothing is cut off or added");
    assert_eq!(found.measurement(), genuine.measurement());
    assert_eq!((found.svn(), found.feed()), (genuine.svn(), genuine.feed()));
    assert_eq!(found.signed_at(), genuine.signed_at());
});
