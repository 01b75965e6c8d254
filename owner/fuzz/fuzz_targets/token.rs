//! Invariant: of tokens signed over any header and any payload, those that are believed have a header of the known form and a payload that
//! is still in its time, say what was signed, and are refused when one bit is different. No key document makes the reader panic.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_verifier::{TokenKeys, verify_token};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW_S: u64 = 1_800_000_000;
/// How far clocks may be apart.
const SKEW_S: u64 = 60;

static SIGNER: LazyLock<(EcdsaKeyPair, TokenKeys)> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let keys = format!(
        r#"{{"keys":[{{"kid":"a","kty":"EC","crv":"P-256","x":"{}","y":"{}"}}]}}"#,
        B64.encode(x),
        B64.encode(y)
    );
    (pair, TokenKeys::from_json(keys.as_bytes()).expect("a key document"))
});

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}

/// Header and payload, parted by the first zero byte; an empty header is the usual one.
fn parts(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let (header, payload) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&[][..], bytes),
    };
    match header {
        [] => (br#"{"alg":"ES256","kid":"a"}"#.to_vec(), payload),
        given => (given.to_vec(), payload),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TokenKeys::from_json(bytes);
    let (pair, keys) = &*SIGNER;
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(verify_token(text, keys, None, now()).is_err(), "nobody signed it");
    }
    let (header, payload) = parts(bytes);
    let signed = format!("{}.{}", B64.encode(&header), B64.encode(payload));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    let token = format!("{signed}.{}", B64.encode(signature.as_ref()));
    let Ok(found) = verify_token(&token, keys, None, now()) else { return };
    // Members that nobody knows are passed over, even where their texts are not Unicode; such a header is no value here.
    if let Ok(header) = serde_json::from_slice::<Value>(&header) {
        assert_eq!((&header["alg"], &header["kid"]), (&Value::from("ES256"), &Value::from("a")));
        assert!(header.get("crit").is_none() && header.get("zip").is_none());
    }
    let claims: Value = serde_json::from_slice(payload).expect("a payload that was believed");
    assert_eq!(&Value::Object(found.claims().clone()), &claims, "what was signed is what is said");
    assert!(claims["exp"].as_u64().expect("an end") >= NOW_S - SKEW_S);
    let place = payload.len() % signed.len();
    let mut altered = token.into_bytes();
    altered[place] ^= 1;
    let altered = String::from_utf8(altered).unwrap_or_default();
    assert!(verify_token(&altered, keys, None, now()).is_err(), "one bit is different");
});
