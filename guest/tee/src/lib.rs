//! Where the guest gets its attestation report: the source that the measured command line names, raw bytes only.
#![forbid(unsafe_code)]
