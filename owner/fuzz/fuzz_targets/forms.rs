//! Invariant: whatever form a report is found in, it is 1184 bytes that were handed over, and reading ends without a panic.
#![no_main]

use ah_evidence::{Presented, SNP_REPORT_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // HCL blobs, hex, base64, attestation requests and sidecar answers are among the forms.
    if let Ok(presented) = Presented::read(bytes) {
        assert_eq!(presented.report.as_bytes().len(), SNP_REPORT_BYTES);
        assert!(bytes.len() >= SNP_REPORT_BYTES);
    }
});
