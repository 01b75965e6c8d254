//! The name of the check that an error comes from: one word a line of the checklist, stable, for logs and scripts.

use ah_evidence::ReportError;

use crate::error::VerifyError;

impl VerifyError {
    /// Name of the check that was not passed, such as `report.signature` or `certificate.validity`.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Report(error) => of_report(error),
            Self::ChipKeyMasked => "report.mask_chip_key",
            Self::SigningKey { .. } => "report.signing_key",
            Self::SignatureRange => "report.signature_range",
            Self::ReportSignature => "report.signature",
            Self::UnknownProcessor { .. } | Self::Product { .. } => "report.product",
            Self::TcbLayout { .. } => "report.tcb_layout",
            Self::Tcb { .. } => "report.reported_tcb",
            Self::TcbOrder { .. } => "report.tcb_order",
            Self::ChipId { .. } | Self::ChipIdLength { .. } => "report.chip_id",
            Self::UntrustedRoot { .. } => "certificate.root",
            Self::TooLarge { .. } => "collateral.size",
            Self::Certificate { .. } => "certificate.encoding",
            Self::CertificateForm { .. } => "certificate.form",
            Self::Name { .. } => "certificate.name",
            Self::NotYetValid { .. } | Self::Expired { .. } => "certificate.validity",
            Self::CertificateSignature { .. } => "certificate.signature",
            Self::PublicKey { .. } => "certificate.public_key",
            Self::DuplicateExtension { .. }
            | Self::UnexpectedExtension { .. }
            | Self::MissingExtension { .. }
            | Self::MalformedExtension { .. } => "certificate.extensions",
            Self::CertificateProduct { .. } => "certificate.product",
            Self::Crl(_) => "revocation.encoding",
            Self::CrlForm { .. } => "revocation.form",
            Self::CrlSignature => "revocation.signature",
            Self::CrlStale => "revocation.freshness",
            Self::Revoked { .. } => "revocation.revoked",
            Self::UnusableRoot(_) => "configuration.root",
        }
    }
}

const fn of_report(error: &ReportError) -> &'static str {
    match error {
        ReportError::Length { .. } => "report.length",
        ReportError::Version { .. } => "report.version",
        ReportError::MustBeZero { .. } => "report.reserved",
        ReportError::Policy { .. } => "report.policy",
        ReportError::Vmpl { .. } => "report.vmpl",
        ReportError::SignatureAlgorithm { .. } => "report.signature_algorithm",
        ReportError::KeyInfo { .. } => "report.key_info",
    }
}
