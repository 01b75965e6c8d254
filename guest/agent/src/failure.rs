//! Why a request was not carried out, by whose fault, and what the host is told.

use ah_agent_api::DecodeError;
use ttrpc::Code;

/// Longest text that is told to the host, in characters.
const MAX_TOLD_CHARS: usize = 4096;

/// A request that was not carried out. The state is as before.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The bytes are no request.
    #[error("{method}: {source}")]
    Malformed {
        /// The method.
        method: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The policy, or a rule of the guest that no policy can change, says no.
    #[error("{text}")]
    Denied {
        /// Rule, field, found and expected, in people's words.
        text: String,
    },
    /// A method that this agent does not have.
    #[error("{method} is not supported by this agent")]
    NotSupported {
        /// The method.
        method: String,
    },
    /// A container or process that is not there.
    #[error("{what} not found")]
    NotFound {
        /// Which.
        what: String,
    },
    /// Made a second time.
    #[error("{what} exists already")]
    Exists {
        /// Which.
        what: String,
    },
    /// At another time it would have been right.
    #[error("{text}")]
    NotNow {
        /// What is missing.
        text: String,
    },
    /// A stream that has ended; the last byte was given before.
    #[error("end of stream")]
    EndOfStream,
    /// Permitted, but it failed in the guest.
    #[error("{what}: {cause}")]
    Effect {
        /// What was tried.
        what: &'static str,
        /// The cause with its causes.
        cause: String,
    },
}

impl Failure {
    /// An effect that failed, with the cause's whole chain.
    pub fn effect(what: &'static str, cause: &(dyn std::error::Error + 'static)) -> Self {
        Self::Effect { what, cause: chain(cause) }
    }

    /// A rule of the guest's own that says no.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Denied { text: text.into() }
    }

    /// The status code that the host gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed { .. } => Code::INVALID_ARGUMENT,
            Self::Denied { .. } => Code::PERMISSION_DENIED,
            Self::NotSupported { .. } => Code::UNIMPLEMENTED,
            Self::NotFound { .. } => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::NotNow { .. } => Code::FAILED_PRECONDITION,
            Self::EndOfStream => Code::OUT_OF_RANGE,
            Self::Effect { .. } => Code::INTERNAL,
        }
    }

    /// The text that the host gets.
    pub fn told(&self) -> String {
        chain(self).chars().take(MAX_TOLD_CHARS).collect()
    }
}

/// An error and its causes in one text. A cause that its error's own text ends with already is not repeated.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
