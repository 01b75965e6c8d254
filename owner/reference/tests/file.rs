//! Signed reference files: the signer's own is believed, and not the smallest change.

use std::time::{Duration, UNIX_EPOCH};

use ah_digest::Sha384;
use ah_evidence::Tee;
use ah_reference::{ReferenceError, ReferenceFile, ReferenceGuest, ReferenceKey, ReferenceSigner};

/// Made with `openssl genpkey -algorithm ed25519`, for these tests only.
const KEYS: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKelDAmYDuT2hW3NQyFcnWPzhtfoJPYwQT8WdGmmtKKa\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKelDAmYDuT2hW3NQyFcnWPzhtfoJPYwQT8WdGmmtKKb\n-----END PRIVATE KEY-----\n",
];

fn signer(which: usize) -> ReferenceSigner {
    ReferenceSigner::from_pem(KEYS[which]).unwrap()
}

fn key() -> ReferenceKey {
    ReferenceKey::from_pem(&signer(0).public_key_pem().unwrap()).unwrap()
}

fn values() -> ReferenceFile {
    let guest = |tee, byte| ReferenceGuest { tee, measurement: Sha384::new([byte; 48]), vcpus: 1 };
    ReferenceFile {
        issued_unix_s: 1000,
        expires_unix_s: Some(2000),
        guests: vec![guest(Tee::Snp, 1), guest(Tee::Software, 2)],
    }
}

fn verified(text: &str, at: u64) -> Result<ReferenceFile, &'static str> {
    let now = UNIX_EPOCH + Duration::from_secs(at);
    key().verify(text.as_bytes(), now).map_err(|error| error.check())
}

#[test]
fn what_was_signed_is_read_again() {
    let text = signer(0).sign(&values()).unwrap();
    let file = verified(&text, 1500).unwrap();
    assert_eq!(file, values());
    assert_eq!(file.measurements(Tee::Snp).collect::<Vec<_>>(), [Sha384::new([1; 48])]);
    assert_eq!(file.measurements(Tee::Tdx).count(), 0);
}

#[test]
fn attack_reference_file_of_another_signer_or_with_a_changed_byte() {
    let text = signer(0).sign(&values()).unwrap();
    let other = signer(1).sign(&values()).unwrap();
    assert_eq!(verified(&other, 1500), Err("reference.signature"));
    for offset in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[offset] ^= 1;
        let changed = String::from_utf8_lossy(&bytes);
        assert!(verified(&changed, 1500).is_err(), "{offset}: {changed}");
    }
}

#[test]
fn attack_reference_file_out_of_its_time() {
    let text = signer(0).sign(&values()).unwrap();
    for (at, expect) in [(999, false), (1000, true), (2000, true), (2001, false)] {
        assert_eq!(verified(&text, at).is_ok(), expect, "{at}");
    }
    let endless = ReferenceFile { expires_unix_s: None, ..values() };
    assert!(verified(&signer(0).sign(&endless).unwrap(), u64::from(u32::MAX)).is_ok());
}

#[test]
fn keys_and_envelopes_are_strict() {
    let text = signer(0).sign(&values()).unwrap();
    assert_eq!(verified(&text.replacen('{', r#"{"extra":1,"#, 1), 1500), Err("reference.encoding"));
    let second = text.replace(r#""version":1"#, r#""version":2"#);
    assert_eq!(verified(&second, 1500), Err("reference.encoding"));
    let public = signer(0).public_key_pem().unwrap();
    assert!(matches!(ReferenceSigner::from_pem(&public), Err(ReferenceError::SigningKey)));
    assert!(matches!(ReferenceKey::from_pem(KEYS[0]), Err(ReferenceError::PublicKey)));
    assert!(matches!(ReferenceKey::from_pem("x"), Err(ReferenceError::PublicKey)));
}
