//! Why a call gave no answer, split by who is to blame.

use ah_agent_api::DecodeError;
use ttrpc::Code;

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guest's policy does not allow the request.
    #[error("{method} denied by the agent's policy: {message}")]
    Denied {
        /// Method that was called.
        method: &'static str,
        /// The agent's text: which rule and field, what was found and expected.
        message: String,
    },
    /// The agent took the request and could not, or would not, carry it out.
    #[error("{method} refused by the agent ({code}): {message}")]
    Refused {
        /// Method that was called.
        method: &'static str,
        /// ttrpc status, by its name.
        code: String,
        /// The agent's text.
        message: String,
    },
    /// No answer in time.
    #[error("{method} got no answer in time")]
    Timeout {
        /// Method that was called.
        method: &'static str,
    },
    /// The connection to the agent is gone.
    #[error("{method}: the connection to the agent ended: {detail}")]
    Disconnected {
        /// Method that was called.
        method: &'static str,
        /// What the transport says.
        detail: String,
    },
    /// The request cannot be written: this side's fault.
    #[error("{method}: the request cannot be encoded")]
    Request {
        /// Method that was called.
        method: &'static str,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The agent's answer is not what the method returns.
    #[error("{method}: the agent's answer cannot be read")]
    Answer {
        /// Method that was called.
        method: &'static str,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

impl CallError {
    pub(crate) fn from_ttrpc(method: &'static str, error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                let message = status.message.clone();
                match status.code() {
                    Code::PERMISSION_DENIED => Self::Denied { method, message },
                    Code::DEADLINE_EXCEEDED => Self::Timeout { method },
                    code => Self::Refused { method, code: format!("{code:?}"), message },
                }
            }
            other => Self::Disconnected { method, detail: other.to_string() },
        }
    }

    /// Whether the guest answered at all.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}
