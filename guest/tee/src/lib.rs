//! Where the guest gets its attestation report: the source that the measured command line names, raw bytes only.
//!
//! Nothing here looks for hardware. A host that wants another source has to change the command line, and with it
//! the launch measurement. What comes back is not checked either: a report proves something only to who
//! verifies its signature, and that is the workload's owner.
#![forbid(unsafe_code)]

mod configfs_tsm;
mod software;

use std::fmt;
use std::str::FromStr;

pub use configfs_tsm::ConfigfsTsm;
pub use software::Software;

/// Length of REPORT_DATA, bytes (SEV-SNP ABI 7.3, MSG_REPORT_REQ; TDX module 1.5, TDG.MR.REPORT).
pub const REPORT_DATA_BYTES: usize = 64;
/// Most bytes of a report that any source may give; a TDX quote with its certificates has about 8 KiB.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a certificate table (Linux `SEV_FW_BLOB_MAX_SIZE` is 16 KiB; room for CRLs).
pub const AUXBLOB_BYTES_MAX: usize = 64 * 1024;

/// The trusted execution environment that the measured command line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tee {
    /// A service of the host that plays the security processor: the same path without confidentiality.
    Software,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A vTPM of an Azure confidential VM.
    AzureVtpm,
}

impl Tee {
    /// The name used on the command line: `anchorhold.tee=<name>`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::AzureVtpm => "azure-vtpm",
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no TEE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tee: found {0:?}, expected software, snp, tdx or azure-vtpm")]
pub struct UnknownTee(String);

impl FromStr for Tee {
    type Err = UnknownTee;

    fn from_str(text: &str) -> Result<Self, UnknownTee> {
        [Self::Software, Self::Snp, Self::Tdx, Self::AzureVtpm]
            .into_iter()
            .find(|tee| tee.name() == text)
            .ok_or_else(|| UnknownTee(text.chars().take(40).collect()))
    }
}

/// What a source gave, unparsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReport {
    /// SNP report (1184 bytes) or TDX quote.
    pub report: Vec<u8>,
    /// The certificate table of AMD's extended request; empty where the source has none.
    pub auxblob: Vec<u8>,
}

/// Something that signs 64 bytes of the guest's choice together with the guest's measurement.
pub trait ReportSource: Send + Sync {
    /// Which TEE this is.
    fn tee(&self) -> Tee;

    /// Asks for a report over `report_data`. Blocks until the source answers or its time is up.
    ///
    /// # Errors
    /// The source is not there, or its answer does not keep to its form.
    fn report(&self, report_data: &[u8; REPORT_DATA_BYTES]) -> Result<RawReport, ReportError>;
}

/// The source for `tee`.
///
/// # Errors
/// [`ReportError::NotSupported`] for a TEE that has no source yet.
pub fn report_source(tee: Tee) -> Result<Box<dyn ReportSource>, ReportError> {
    match tee {
        Tee::Software => Ok(Box::new(Software::new())),
        Tee::Snp => Ok(Box::new(ConfigfsTsm::snp())),
        Tee::Tdx => Ok(Box::new(ConfigfsTsm::tdx())),
        Tee::AzureVtpm => Err(ReportError::NotSupported { tee }),
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// This TEE is known by name only.
    #[error("reports of tee {tee} are not supported yet")]
    NotSupported {
        /// The TEE asked for.
        tee: Tee,
    },
    /// A step of the exchange failed.
    #[error("{step}")]
    Io {
        /// What was being done.
        step: String,
        /// What the kernel or the peer answered.
        source: std::io::Error,
    },
    /// A length outside its limits.
    #[error("{part} has {found} bytes, expected {expected}")]
    Length {
        /// Part of the answer.
        part: &'static str,
        /// Length found; of an endless answer, how much was read.
        found: usize,
        /// Length expected.
        expected: &'static str,
    },
    /// The kernel's report interface belongs to another TEE than the command line says.
    #[error("report provider is {found:?}, expected {expected:?}")]
    Provider {
        /// Provider found.
        found: String,
        /// Provider expected.
        expected: &'static str,
    },
    /// Somebody else used the same report entry in between.
    #[error("report entry was changed while in use: found generation {found}, expected 1")]
    Generation {
        /// Generation found.
        found: String,
    },
}

impl ReportError {
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_names_are_tees() {
        for tee in [Tee::Software, Tee::Snp, Tee::Tdx, Tee::AzureVtpm] {
            assert_eq!(tee.name().parse(), Ok(tee));
        }
        for name in ["", "SNP", "snp ", "auto", "none"] {
            assert_eq!(name.parse::<Tee>(), Err(UnknownTee(name.to_owned())));
        }
    }

    #[test]
    fn azure_vtpm_is_a_clear_refusal_and_never_another_source() {
        assert!(matches!(
            report_source(Tee::AzureVtpm),
            Err(ReportError::NotSupported { tee: Tee::AzureVtpm })
        ));
        assert_eq!(report_source(Tee::Snp).unwrap().tee(), Tee::Snp);
        assert_eq!(report_source(Tee::Tdx).unwrap().tee(), Tee::Tdx);
        assert_eq!(report_source(Tee::Software).unwrap().tee(), Tee::Software);
    }
}
