//! Vendor certificates and revocation lists, from the evidence itself or from files: the only I/O of verification.
//!
//! | source | form |
//! |---|---|
//! | evidence | SNP certificate table beside the report (`auxblob`) |
//! | file | certificates, PEM (any number) or DER (one) |
//! | file | the JSON that Azure's THIM hands out: `vcekCert`, `certificateChain`, `tcbm` |
//! | file | revocation list, PEM or DER |
//! | folder | certificates and lists by chip, TCB and product line: [`Folder`] |
//! | AMD's key distribution service | the same, kept in a folder that many processes share: [`Kds`] |
//!
//! Nothing is believed here: certificates are only sorted by their names. A root that no source brings along is filled in
//! from the verifier's own pinned ones.
#![forbid(unsafe_code)]

mod certificates;
mod fetch;
mod files;
mod folder;
mod kds;
mod lists;
mod revocation;
mod thim;

use std::path::PathBuf;

pub use certificates::Certificates;
pub use fetch::{FetchError, Fetched, Kds, KdsOptions};
pub use files::{MAX_FILE_BYTES, der_of_pem, read_certificates, read_revocation_list};
pub use folder::{Folder, Imported, QuoteFile};
pub use kds::{ChainKind, KDS, KdsError, Wanted};
pub use revocation::{CheckError, ListNeed, RevocationLists};
pub use thim::ThimCertificates;

use ah_evidence::{CertTable, CertTableError, Evidence};
use ah_verifier::{Collateral, Revocation};

/// Why there is no collateral.
#[derive(Debug, thiserror::Error)]
pub enum CollateralError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Larger than certificates are.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// Which source.
        what: String,
        /// Limit, bytes.
        limit: usize,
    },
    /// The certificate table of the evidence is broken.
    #[error("evidence holds a broken certificate table")]
    CertTable(#[source] CertTableError),
    /// Neither PEM nor DER certificates.
    #[error("{what} holds no x.509 certificates")]
    Encoding {
        /// Which source.
        what: String,
        /// Cause.
        #[source]
        source: der::Error,
    },
    /// Not the JSON document that THIM hands out.
    #[error("thim document is not as expected")]
    Thim(#[source] serde_json::Error),
    /// A certificate whose name says neither root, intermediate nor endorsement key.
    #[error("certificate of {subject:?} has no place in an snp chain")]
    UnknownCertificate {
        /// Subject found.
        subject: String,
    },
    /// Two certificates for one place.
    #[error("two different certificates of {subject:?}")]
    Ambiguous {
        /// Subject of both.
        subject: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A certificate that does not say what it is for.
    #[error("endorsement certificate cannot be filed")]
    Endorsement(#[source] ah_verifier::VerifyError),
    /// A revocation list of nobody's that is known.
    #[error("revocation list of issuer {issuer:?} has no place in an snp chain")]
    UnknownList {
        /// Issuer found.
        issuer: String,
    },
    /// A report that certificates cannot be looked up for.
    #[error(transparent)]
    Wanted(#[from] KdsError),
    /// A certificate that no source brought.
    #[error("no {what} certificate at hand")]
    Missing {
        /// Which.
        what: &'static str,
    },
}

/// Collateral from what the evidence itself brings along.
///
/// # Errors
/// [`CollateralError::CertTable`], [`CollateralError::Missing`] and what [`Certificates::add`] says.
pub fn from_evidence(
    evidence: &Evidence,
    revocation: Revocation,
) -> Result<Collateral, CollateralError> {
    from_cert_table(&evidence.auxblob, revocation)
}

/// Collateral from an SNP certificate table. A list in the table is used if `revocation` brings none.
///
/// # Errors
/// As [`from_evidence`].
pub fn from_cert_table(
    auxblob: &[u8],
    revocation: Revocation,
) -> Result<Collateral, CollateralError> {
    let table = CertTable::decode(auxblob).map_err(CollateralError::CertTable)?;
    let mut certificates = Certificates::default();
    certificates.add_table(&table)?;
    certificates.collateral(revocation)
}
