//! Invariant: no certificates or revocation list, whatever they are, make an unsigned report verify.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use ah_evidence::{RawReport, SNP_REPORT_BYTES};
use ah_verifier::{Collateral, Revocation, TrustedRoots, verify};
use libfuzzer_sys::fuzz_target;

/// Version 2, policy bit 17, signature algorithm 1: parses, but nobody signed it.
fn unsigned() -> RawReport {
    let mut bytes = [0; SNP_REPORT_BYTES];
    bytes[0] = 2;
    bytes[0x0A] = 2;
    bytes[0x34] = 1;
    RawReport::try_from(bytes.as_slice()).expect("the right length")
}

fuzz_target!(|bytes: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let revocation = Revocation::List(bytes.to_vec());
    if let Ok(found) = ah_collateral::from_cert_table(bytes, revocation.clone()) {
        assert!(verify(&unsigned(), &found, now, &TrustedRoots::amd()).is_err());
    }
    let root = TrustedRoots::amd_root_der(ah_evidence::Product::Genoa).expect("pinned").to_vec();
    let collateral =
        Collateral { endorsement: bytes.to_vec(), intermediate: bytes.to_vec(), root, revocation };
    assert!(verify(&unsigned(), &collateral, now, &TrustedRoots::amd()).is_err());
});
