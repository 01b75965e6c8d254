//! Why a call of containerd failed: what it is told goes into the pod's events, so it is in words.

use std::path::PathBuf;

use ah_sandbox::SandboxError;
use ttrpc::Code;

use crate::{ConfigError, convert};

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// A container or process that is not there.
    #[error("{what} not found")]
    NotFound {
        /// It.
        what: String,
    },
    /// A container or process that is there already.
    #[error("{what} exists already")]
    Exists {
        /// It.
        what: String,
    },
    /// The wrong time for it.
    #[error("{what}: found {found}, expected {expected}")]
    State {
        /// The process.
        what: String,
        /// Its state.
        found: &'static str,
        /// The states in which it could be done.
        expected: &'static str,
    },
    /// containerd sent something that cannot be used.
    #[error("{field}: found {found}, expected {expected}")]
    Request {
        /// The field.
        field: &'static str,
        /// What it held.
        found: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// Not done by this shim.
    #[error("{what} is not supported for containers in a VM")]
    Unsupported {
        /// It.
        what: &'static str,
    },
    /// A confidential pod without a policy.
    #[error(
        "this runtime class is for confidential pods, and the pod has no policy: expected annotation {expected}\nhint: `anchorhold policy generate` adds it"
    )]
    NoPolicy {
        /// The annotation.
        expected: &'static str,
    },
    /// The pod's policy cannot be read.
    #[error("the pod's policy")]
    Policy(#[from] ah_policy::DocumentError),
    /// The pod cannot be in a VM, or its bundle cannot be read.
    #[error(transparent)]
    Convert(#[from] convert::ConvertError),
    /// config.json or the process of an exec.
    #[error("bundle")]
    Bundle(#[from] convert::BundleError),
    /// The rootfs has no block images.
    #[error(transparent)]
    Layers(#[from] ah_layers::SnapshotLayersError),
    /// The shim's own configuration.
    #[error("shim configuration")]
    Config(#[from] ConfigError),
    /// VM, guest, policy in the guest.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The software TEE.
    #[error("software tee")]
    SoftwareTee(#[from] ah_software_tee::SoftwareTeeError),
    /// A TEE of the hardware that this machine does not run guests with.
    #[error("tee {tee}: found {found} as what runs guests on this machine, expected kvm")]
    Hardware {
        /// The configured one.
        tee: &'static str,
        /// What runs guests.
        found: String,
    },
    /// The pod's network.
    #[error("pod network: {what}")]
    Network {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this machine.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
    /// The socket that containerd is to call.
    #[error("ttrpc")]
    Ttrpc(#[from] ttrpc::Error),
}

impl From<ah_vmm::VmError> for ShimError {
    fn from(error: ah_vmm::VmError) -> Self {
        Self::Sandbox(error.into())
    }
}

impl ShimError {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn network<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Network { what, source: Box::new(source) }
    }

    /// What containerd is told: it knows errors by their code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::State { .. } => Code::FAILED_PRECONDITION,
            Self::Request { .. } | Self::NoPolicy { .. } | Self::Policy(_) | Self::Convert(_) => {
                Code::INVALID_ARGUMENT
            }
            Self::Unsupported { .. } => Code::UNIMPLEMENTED,
            Self::Sandbox(SandboxError::DeniedByPolicy { .. }) => Code::PERMISSION_DENIED,
            _ => Code::UNKNOWN,
        }
    }

    /// The error with its causes.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            // a transparent error repeats its own text as its source's
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }
}
