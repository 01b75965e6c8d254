//! A request as the agent handles it: one variant a method, holding the strictly decoded message.

use serde_json::Value;

use crate::agent::*;
use crate::input::{InputError, PolicyRequest};
use crate::strict::{DecodeError, Wire, decode, encode};

macro_rules! requests {
    ($($(#[$doc:meta])* $method:ident($message:ident),)*) => {
        /// A request of the agent service, decoded.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant)]
        pub enum Request {
            $(#[doc = concat!("`", stringify!($method), "`")] $method($message),)*
        }

        impl Request {
            /// Decodes exactly `bytes` as the request of `method` of the agent service.
            ///
            /// # Errors
            /// [`DecodeError`]: unknown method, size, truncation, unknown or repeated fields.
            pub fn decode(method: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
                match method {
                    $(stringify!($method) => decode(bytes).map(Self::$method),)*
                    _ => Err(DecodeError::UnknownMethod { method: method.chars().take(80).collect() }),
                }
            }

            /// The message's bytes.
            ///
            /// # Errors
            /// [`DecodeError::TooLarge`] when the other side would refuse it.
            pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
                match self { $(Self::$method(message) => encode(message),)* }
            }

            /// The method's name.
            pub fn method(&self) -> &'static str {
                match self { $(Self::$method(_) => stringify!($method),)* }
            }

            /// The name of the policy rule that decides it: the message's name.
            pub fn rule_name(&self) -> &'static str {
                match self { $(Self::$method(message) => message.rule_name(),)* }
            }

            /// The policy input (agent policy convention, input documents).
            ///
            /// # Errors
            /// [`InputError`] when the message has no input form.
            pub fn to_input(&self) -> Result<Value, InputError> {
                match self { $(Self::$method(message) => message.to_input(),)* }
            }

            /// Reads a request written as JSON: `kind` is a rule name or a method name, missing fields take their
            /// defaults, unknown fields are refused.
            ///
            /// # Errors
            /// [`InputError`] naming the kind or the field.
            pub fn from_json(kind: &str, json: Value) -> Result<Self, InputError> {
                $(if kind == stringify!($method) || kind == <$message as Wire>::SCHEMA.name {
                    return <$message as PolicyRequest>::from_json(json).map(Self::$method);
                })*
                Err(InputError::UnknownKind { kind: kind.chars().take(80).collect() })
            }
        }
    };
}

requests! {
    CreateContainer(CreateContainerRequest),
    StartContainer(StartContainerRequest),
    RemoveContainer(RemoveContainerRequest),
    ExecProcess(ExecProcessRequest),
    SignalProcess(SignalProcessRequest),
    WaitProcess(WaitProcessRequest),
    UpdateContainer(UpdateContainerRequest),
    UpdateEphemeralMounts(UpdateEphemeralMountsRequest),
    StatsContainer(StatsContainerRequest),
    PauseContainer(PauseContainerRequest),
    ResumeContainer(ResumeContainerRequest),
    RemoveStaleVirtiofsShareMounts(RemoveStaleVirtiofsShareMountsRequest),
    GetDiagnosticData(GetDiagnosticDataRequest),
    WriteStdin(WriteStreamRequest),
    ReadStdout(ReadStreamRequest),
    ReadStderr(ReadStreamRequest),
    CloseStdin(CloseStdinRequest),
    TtyWinResize(TtyWinResizeRequest),
    UpdateInterface(UpdateInterfaceRequest),
    UpdateRoutes(UpdateRoutesRequest),
    ListInterfaces(ListInterfacesRequest),
    ListRoutes(ListRoutesRequest),
    AddARPNeighbors(AddARPNeighborsRequest),
    GetIPTables(GetIPTablesRequest),
    SetIPTables(SetIPTablesRequest),
    GetMetrics(GetMetricsRequest),
    MemAgentMemcgSet(MemAgentMemcgConfig),
    MemAgentCompactSet(MemAgentCompactConfig),
    CreateSandbox(CreateSandboxRequest),
    DestroySandbox(DestroySandboxRequest),
    OnlineCPUMem(OnlineCPUMemRequest),
    ReseedRandomDev(ReseedRandomDevRequest),
    GetGuestDetails(GuestDetailsRequest),
    MemHotplugByProbe(MemHotplugByProbeRequest),
    SetGuestDateTime(SetGuestDateTimeRequest),
    CopyFile(CopyFileRequest),
    GetOOMEvent(GetOOMEventRequest),
    AddSwap(AddSwapRequest),
    AddSwapPath(AddSwapPathRequest),
    GetVolumeStats(VolumeStatsRequest),
    ResizeVolume(ResizeVolumeRequest),
    SetPolicy(SetPolicyRequest),
}

impl PolicyRequest for Request {
    fn rule_name(&self) -> &'static str {
        Self::rule_name(self)
    }

    fn to_input(&self) -> Result<Value, InputError> {
        Self::to_input(self)
    }

    fn from_json(_: Value) -> Result<Self, InputError> {
        Err(InputError::UnknownKind { kind: String::new() })
    }
}
