//! A program in the place of AMD's security processor: signs reports under a root made on first use. Protects nothing.
//!
//! It stands on the untrusted side, like the machine it plays: whoever reads its folder can sign any report. No verifier
//! accepts its root unless told so by an option with `danger` in its name.
//!
//! Certificates have the shape of AMD's (RSA-4096 PSS root and intermediate, P-384 VCEK, AMD's extensions), so that the same
//! verifier code runs over them, and say in every name that they come from software.
#![forbid(unsafe_code)]

mod certificates;
mod guest;
mod processor;
mod store;

use std::path::{Path, PathBuf};

pub use ah_evidence::ReportWithCerts;
pub use certificates::ORGANIZATION;
pub use guest::SoftwareGuest;
pub use processor::SoftwareTee;

/// Why the software TEE cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareTeeError {
    /// A file or folder cannot be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the keys or replace them.
    #[error("{} has mode {mode:o}, expected none of the bits {forbidden:o}", path.display())]
    Permissions {
        /// Where.
        path: PathBuf,
        /// Permission bits found.
        mode: u32,
        /// Bits that must be clear.
        forbidden: u32,
    },
    /// The folder holds something that this version did not write.
    #[error("software tee in {} is damaged: {what}; remove the folder to make a new one", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A certificate could not be encoded.
    #[error("cannot encode a certificate")]
    Encoding(#[from] der::Error),
    /// The cryptographic library failed.
    #[error("cryptographic library failed to {what}")]
    Crypto {
        /// What was tried.
        what: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
    /// The guest's launch cannot be measured.
    #[error("cannot measure the guest")]
    Launch(#[from] ah_launch::LaunchError),
    /// The certificates do not fit into a certificate table.
    #[error("cannot make the certificate table")]
    CertTable(#[from] ah_evidence::CertTableError),
    /// The response to a guest cannot be encoded.
    #[error("cannot encode the report response")]
    Response(#[from] ah_evidence::ServiceError),
    /// The guest's connection failed.
    #[error("report exchange with the guest failed")]
    Exchange(#[source] std::io::Error),
}

impl SoftwareTeeError {
    fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}
