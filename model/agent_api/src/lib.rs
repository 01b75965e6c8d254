//! The host-to-guest protocol: Kata agent wire types, the method table, and domain requests made from them by TryFrom.
//!
//! The types in [`agent`], [`oci`], [`types`], [`csi`] and [`health`] are generated from `proto/` and keep the
//! definition's field names. Their serde form is the policy input of the agent policy convention: every field
//! present, unset messages `null`, enums as numbers, the Rust keyword `type` written `type_`.
//! Bytes from the other side become values through [`Request::decode`] or [`decode`] only.
#![forbid(unsafe_code)]

mod copy_file;
mod input;
mod json;
mod methods;
pub mod ports;
mod request;
mod strict;
mod trace;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire/mod.rs"));
}

pub use protobuf;
pub use protobuf::well_known_types::empty::Empty;
pub use wire::{agent, csi, health, oci, types};

pub use copy_file::FileType;
pub use input::{InputError, PolicyRequest};
pub use methods::{AGENT_SERVICE, HEALTH_SERVICE, METHODS, Method, method, request_names};
pub use request::Request;
pub use strict::{DecodeError, MAX_MESSAGE_BYTES, Wire, decode, encode};
pub use trace::{TRACEPARENT, TraceParent, TraceParentError};
