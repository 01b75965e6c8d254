//! SEV-SNP attestation reports: SEV Secure Nested Paging Firmware ABI (AMD document 56860), ATTESTATION_REPORT.

mod fields;
mod raw;
mod report;
mod tcb;

pub use fields::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo,
    SigningKey, Version,
};
pub use raw::{RawReport, ReportError, ReportSignature, SIGNED_BYTES, SNP_REPORT_BYTES};
pub use report::SnpReport;
pub use tcb::{Product, TcbParts, TcbVersion};
