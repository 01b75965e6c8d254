//! Invariant: no COSE message that the fuzzer can make is believed, and none makes the reader panic.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use ah_reference::{UvmIssuer, verify_uvm};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let issuers = [
        UvmIssuer::azure_container_instances(u64::MAX).expect("a constant"),
        UvmIssuer::azure_kubernetes(u64::MAX).expect("a constant"),
    ];
    // Even a genuine message of the corpus is of too low a version.
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert!(verify_uvm(bytes, &issuers, now).is_err());
});
