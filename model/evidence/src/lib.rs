//! Raw SNP report and TDX quote bytes with typed views over them, report-data and host-data rules; no crypto beyond hashing.
#![forbid(unsafe_code)]
