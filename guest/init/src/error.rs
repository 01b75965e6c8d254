use std::io;
use std::path::{Path, PathBuf};

use ah_guest_sys::SysError;

use crate::binding::Refusal;
use crate::command_line::CommandLineError;

/// Why the guest must not run.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The host's doing: the initdata is not the one that the report binds.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The initdata disk's content is no initdata, or its algorithm does not fit.
    #[error("initdata")]
    InitData(#[source] ah_policy::DocumentError),
    /// Two disks start with the magic of initdata.
    #[error("two disks hold initdata, expected at most one")]
    TwoInitDataDisks,
    /// There is no report.
    #[error("attestation report")]
    Report(#[source] ah_tee::ReportError),
    /// A TEE whose report the host hands over, who could have written it.
    #[error(
        "a quote of tee {0} comes through the host, who could have written it: such a guest cannot check its initdata in this version"
    )]
    QuoteOfHost(ah_tee::Tee),
    /// The report is none of SEV-SNP.
    #[error("attestation report")]
    SnpReport(#[source] ah_evidence::ReportError),
    /// The command line is not for this init.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The CPU gives no random seed.
    #[error("random seed")]
    Entropy(#[source] SysError),
    /// The kernel took the CPU's seed and still has none.
    #[error("the random generator has no seed, and only the host could give one")]
    NoSeed,
    /// A step of bringing the guest up.
    #[error("start")]
    Sys(#[from] SysError),
    /// A file or folder.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image's own list of modules has another form.
    #[error("module list has an unexpected line: {0:?}")]
    ModuleList(String),
    /// A thread that loads modules ended early.
    #[error("loading of modules ended early")]
    ModuleThread,
}

impl InitError {
    /// `refused` when somebody outside the guest is to blame and the check did its work, else `failed`.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Refused(_)
            | Self::InitData(_)
            | Self::TwoInitDataDisks
            | Self::SnpReport(_)
            | Self::QuoteOfHost(_)
            | Self::CommandLine(_) => "refused",
            _ => "failed",
        }
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
