//! Invariant: no bytes are both an index and a manifest.
#![no_main]

use ah_oci::{Platform, parse_config, parse_index, parse_manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_config(bytes, Platform::LinuxAmd64);
    assert!(parse_index(bytes).is_err() || parse_manifest(bytes).is_err());
});
