//! Raw SNP report and TDX quote bytes with typed views over them, report-data and host-data rules; no crypto beyond hashing.
//!
//! Nothing here says that a report is genuine: a [`SnpReport`] made from bytes is what somebody claims. Only `ah_verifier`
//! turns it into a `Verified<SnpReport>`.
#![forbid(unsafe_code)]

mod bytes;
mod cert_table;
mod document;
mod forms;
mod hcl;
mod report_data;
mod service;
mod snp;
mod tdx;

pub use cert_table::{CertKind, CertTable, CertTableError};
pub use document::{Evidence, EvidenceError, MAX_DOCUMENT_BYTES, MAX_INITDATA_BYTES, Tee};
pub use forms::{Form, FormError, Presented};
pub use hcl::HclError;
pub use report_data::{HostData, ReportData};
pub use service::{
    MAX_AUXBLOB_BYTES, MAX_RESPONSE_BYTES, ReportWithCerts, SOFTWARE_REPORT_PORT, ServiceError,
};
pub use snp::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Product,
    RawReport, ReportError, ReportSignature, SIGNED_BYTES, SNP_REPORT_BYTES, SigningKey, SnpReport,
    TcbParts, TcbVersion, Version,
};
pub use tdx::{RawQuote, TdAttributes, TdxError, TdxExtension, TdxQuoteView, TdxReportView};
