//! Why a registry did not give what it was asked for.

use std::time::Duration;

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The request could not be made or the answer broke off.
    #[error("{url} was not reached or broke off")]
    Send {
        /// Address without its query, which may hold secrets.
        url: String,
        /// The client's reason.
        source: reqwest::Error,
    },
    /// The registry wants other credentials, or the image is not for them.
    #[error("{url} refused access with status {status}; tried {tried}")]
    Denied {
        /// Address.
        url: String,
        /// HTTP status, 401 or 403.
        status: u16,
        /// Which credentials were tried, never their secret.
        tried: String,
    },
    /// There is no such image, or it is hidden from these credentials.
    #[error("{url} is not there (status 404); tried {tried}")]
    NotFound {
        /// Address.
        url: String,
        /// Which credentials were tried.
        tried: String,
    },
    /// The registry asks to wait longer than anyone would.
    #[error("{url} is limited by its registry (status {status}): it asks to wait {} s", wait.as_secs())]
    Limited {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// How long.
        wait: Duration,
    },
    /// Any other status.
    #[error("{url} answered with status {status} after {attempts} attempts: {message:?}")]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// How often it was asked.
        attempts: u32,
        /// The beginning of the answer.
        message: String,
    },
    /// A document is longer than its maximum.
    #[error("{url} is longer than the expected {expected} bytes")]
    TooLong {
        /// Address.
        url: String,
        /// Maximum, bytes.
        expected: u64,
    },
    /// A redirect or token service that credentials or images must not go through.
    #[error("{from} leads to {to:?}, which is refused: {reason}")]
    Elsewhere {
        /// Who led there.
        from: String,
        /// Where to.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token service's answer has no token.
    #[error("{url} gave no token that can be used")]
    Token {
        /// The token service.
        url: String,
    },
    /// Stored credentials could not be used.
    #[error("stored credentials are not usable: {reason}")]
    Credentials {
        /// The reason.
        reason: String,
    },
    /// A file that says how to reach a registry is wrong.
    #[error("{path}: {reason}")]
    Configuration {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry's own answer after all of its mirrors failed.
    #[error("no mirror had it ({mirrors})")]
    Mirrors {
        /// Each mirror and its failure.
        mirrors: String,
        /// The registry's failure.
        source: Box<RemoteError>,
    },
}

impl RemoteError {
    /// What to do about it.
    pub fn hint(&self, registry: &str) -> String {
        let log_in = format!("log in with `docker login {registry}` or `podman login {registry}`");
        match self {
            Self::Denied { tried, .. } if tried.starts_with("no credentials") => log_in,
            Self::Denied { .. } => {
                format!("check that these credentials may pull the image, or {log_in} again")
            }
            Self::NotFound { .. } => {
                format!("check name and tag; if the repository is private, {log_in}")
            }
            Self::Limited { .. } => {
                format!("try later; logged-in users often have higher limits: {log_in}")
            }
            Self::Credentials { .. } | Self::Token { .. } => format!("{log_in} again"),
            Self::Send { .. } => format!(
                "check name and network; give the image in a layout folder with --images, a private CA with --ca, or \
                 name a registry without TLS with --plain-http {registry}"
            ),
            Self::Mirrors { source, .. } => source.hint(registry),
            Self::Configuration { .. } => "correct or remove the file".into(),
            Self::Elsewhere { .. } => {
                format!("if {registry} itself has no TLS, name it with --plain-http {registry}")
            }
            Self::Status { .. } | Self::TooLong { .. } => {
                "the registry answered with an error of its own; try again later".into()
            }
        }
    }

    /// Whether another endpoint of the same registry may do better.
    pub(super) fn is_endpoints_own(&self) -> bool {
        !matches!(self, Self::Credentials { .. } | Self::Configuration { .. })
    }
}
