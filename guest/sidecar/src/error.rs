//! Why an application gets no answer, by whose part it is.

/// What went wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// The application's request.
    #[error("request: {0}")]
    Request(String),
    /// No report: the guest's socket is missing or refuses.
    #[error("no attestation report: {0}")]
    Report(String),
    /// No certificates for the report.
    #[error("no certificates for the attestation report: {0}")]
    Certificates(String),
    /// The attestation service.
    #[error("attestation service {endpoint}: {words}")]
    Maa {
        /// Its address.
        endpoint: String,
        /// What it said, or what happened.
        words: String,
    },
    /// Who the pod is.
    #[error("access token for the vault: {0}")]
    Identity(String),
    /// The vault, or what it answered.
    #[error("vault {endpoint}: {words}")]
    Vault {
        /// Its address.
        endpoint: String,
        /// What it said, or what happened.
        words: String,
    },
    /// This program.
    #[error("sidecar: {0}")]
    Internal(&'static str),
}

/// An error and its causes, in one line without control characters.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    printable(&text, 1000)
}

/// Somebody else's words, cut and freed of control characters: they end in logs and on terminals.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
