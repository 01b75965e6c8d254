//! The policy input: a request as the JSON document that the rules read.

use serde::Serialize;
use serde_json::Value;

use crate::agent::*;
use crate::strict::Wire;

/// Why a request has no policy input, or a JSON document is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No request message or method has this name.
    #[error("unknown request kind {kind:?}")]
    UnknownKind {
        /// The name found, at most 80 characters of it.
        kind: String,
    },
    /// The JSON does not fit the message.
    #[error("{message} does not fit its definition: {detail}")]
    Json {
        /// The message.
        message: &'static str,
        /// What does not fit, with the field.
        detail: String,
    },
    /// A symlink whose target is not UTF-8: the rules could not see it as it is.
    #[error("target of symbolic link {path:?} is not UTF-8")]
    SymlinkTarget {
        /// The link's path.
        path: String,
    },
}

/// A request that a policy rule decides.
pub trait PolicyRequest: Sized {
    /// The rule's name: the request message's name.
    fn rule_name(&self) -> &'static str;

    /// The document that the rule reads as `input`.
    ///
    /// # Errors
    /// [`InputError`] when the message has no such form.
    fn to_input(&self) -> Result<Value, InputError>;

    /// The reverse of [`PolicyRequest::to_input`], with defaults for missing fields.
    ///
    /// # Errors
    /// [`InputError`] naming what does not fit.
    fn from_json(json: Value) -> Result<Self, InputError>;
}

macro_rules! plain {
    ($($message:ident)*) => { $(
        impl PolicyRequest for $message {
            fn rule_name(&self) -> &'static str {
                <Self as Wire>::SCHEMA.name
            }

            fn to_input(&self) -> Result<Value, InputError> {
                plain_input(self)
            }

            fn from_json(json: Value) -> Result<Self, InputError> {
                plain_request(json)
            }
        }
    )* };
}

plain! {
    CreateContainerRequest StartContainerRequest RemoveContainerRequest ExecProcessRequest
    SignalProcessRequest WaitProcessRequest UpdateContainerRequest UpdateEphemeralMountsRequest
    StatsContainerRequest PauseContainerRequest ResumeContainerRequest
    RemoveStaleVirtiofsShareMountsRequest GetDiagnosticDataRequest ReadStreamRequest
    CloseStdinRequest TtyWinResizeRequest UpdateInterfaceRequest UpdateRoutesRequest
    ListInterfacesRequest ListRoutesRequest AddARPNeighborsRequest GetIPTablesRequest
    SetIPTablesRequest GetMetricsRequest MemAgentMemcgConfig MemAgentCompactConfig
    CreateSandboxRequest DestroySandboxRequest OnlineCPUMemRequest ReseedRandomDevRequest
    GuestDetailsRequest MemHotplugByProbeRequest SetGuestDateTimeRequest GetOOMEventRequest
    AddSwapRequest AddSwapPathRequest VolumeStatsRequest ResizeVolumeRequest SetPolicyRequest
}

/// The bytes written to a process are left out: a rule that asks for them gets no result, which denies. As a JSON
/// list of numbers they would cost 30 times their size for every chunk of input.
impl PolicyRequest for WriteStreamRequest {
    fn rule_name(&self) -> &'static str {
        Self::SCHEMA.name
    }

    fn to_input(&self) -> Result<Value, InputError> {
        Ok(serde_json::json!({ "container_id": self.container_id, "exec_id": self.exec_id }))
    }

    fn from_json(json: Value) -> Result<Self, InputError> {
        plain_request(json)
    }
}

fn json_error(message: &'static str) -> impl Fn(serde_json::Error) -> InputError {
    move |err| InputError::Json { message, detail: err.to_string() }
}

fn plain_input<M: Wire + Serialize>(message: &M) -> Result<Value, InputError> {
    serde_json::to_value(message).map_err(json_error(M::SCHEMA.name))
}

fn plain_request<M: Wire + for<'de> serde::Deserialize<'de>>(json: Value) -> Result<M, InputError> {
    serde_json::from_value(json).map_err(json_error(M::SCHEMA.name))
}
