use std::io;
use std::path::{Path, PathBuf};

/// Why an image was not built, loaded or measured.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or folder could not be used.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that the build needs could not be started.
    #[error("run {program}: is its Debian package installed?")]
    Program {
        /// The program.
        program: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that the build needs failed.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last words, at most 2000 characters.
        message: String,
    },
    /// apt knows no kernel package that will do.
    #[error(
        "apt knows no cloud kernel: found none of {expected}; hint: run `apt-get update`, or give a kernel with --kernel FILE"
    )]
    NoKernelPackage {
        /// Packages looked for.
        expected: String,
    },
    /// A program's output has another form than expected.
    #[error("{program} printed an unexpected answer: {found:?}")]
    Output {
        /// The program.
        program: &'static str,
        /// What it printed, at most 500 characters.
        found: String,
    },
    /// Bytes that should have a known digest have another.
    #[error("{path} has SHA-256 {found}, expected {expected}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// Digest found.
        found: ah_digest::Sha256,
        /// Digest expected.
        expected: ah_digest::Sha256,
    },
    /// The kernel package has neither the module nor has the kernel it built in.
    #[error("kernel {release} has no module {module}")]
    NoModule {
        /// Kernel release.
        release: String,
        /// Module name.
        module: String,
    },
    /// A module file cannot be read as a module.
    #[error("module {path} has an unexpected form: {reason}")]
    ModuleForm {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A part is longer than its format can say.
    #[error("{name} has {found} bytes, expected at most 4294967295")]
    TooLarge {
        /// Name in the archive.
        name: String,
        /// Length found, bytes.
        found: usize,
    },
    /// The manifest of an image folder is not one.
    #[error("{path} is no manifest of this version")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A TEE that has no measurement of this kind.
    #[error("launch measurement of tee {tee} is not supported yet")]
    Tee {
        /// The TEE.
        tee: ah_evidence::Tee,
    },
    /// The launch measurement could not be computed.
    #[error("measure the guest image")]
    Measure(#[source] ah_launch::LaunchError),
}

impl ImageError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
