//! Invariant: no token that the fuzzer can make verifies by a key that nobody has, and no key document makes the reader panic.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use ah_verifier::{TokenKeys, verify_token};
use libfuzzer_sys::fuzz_target;

const KEYS: &[u8] = br#"{"keys":[{"kid":"a","kty":"EC","crv":"P-256",
"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = TokenKeys::from_json(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = TokenKeys::from_json(KEYS).expect("a constant");
    assert!(verify_token(text, &keys, None, now).is_err());
});
