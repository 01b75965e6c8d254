//! Why there is no token.

use ah_collateral::{CheckError, CollateralError};
use ah_evidence::ReportData;

use crate::request::RequestError;

/// Why evidence gets no token, by whose part it is.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The request cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificates that came with the report.
    #[error("VcekCertChain is not a certificate chain of a report")]
    Certificates(#[source] CollateralError),
    /// The report or its chain does not verify.
    #[error("SnpReport is not verified")]
    Report(#[source] CheckError),
    /// A quote that does not verify.
    #[error("quote is not verified: {0}")]
    Quote(String),
    /// This service was not given what it takes to verify quotes.
    #[error("quotes of TDX are not verified by this service")]
    NoQuoteVerifier,
    /// The report is about other runtime data.
    #[error(
        "runtimeData is not what the report binds: REPORT_DATA is {found}, expected {expected}"
    )]
    RuntimeData {
        /// REPORT_DATA of the report.
        found: ReportData,
        /// SHA-256 of the runtime data, then zeros.
        expected: ReportData,
    },
    /// The report is about other init-time data.
    #[error("initTimeData is not what the report binds: HOST_DATA is {found}, expected {expected}")]
    InitTimeData {
        /// HOST_DATA of the report, hex.
        found: String,
        /// SHA-256 of the init-time data, hex.
        expected: String,
    },
    /// UVM endorsements came along and do not verify for this report.
    #[error("Endorsements do not verify for this report: {0}")]
    Endorsements(String),
    /// The service failed.
    #[error("token cannot be made: {0}")]
    Internal(&'static str),
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
