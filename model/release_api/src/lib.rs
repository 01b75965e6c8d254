//! Key-release messages, release-policy grammar, wrapped-key formats, and the frames that carry them.
//!
//! One exchange, guest to key service, over any byte stream ([`frame`] says how a message is delimited):
//!
//! 1. guest: [`Request::Challenge`]; service: [`Response::Challenge`] with a fresh [`Nonce`];
//! 2. guest: makes a key pair, writes [`RuntimeData`] (nonce, key id, public key), gets a report whose REPORT_DATA is
//!    SHA-256 of exactly those bytes, sends [`Request::Release`];
//! 3. service: [`Response::Released`] with a [`WrappedKey`] only that key pair opens, or [`Response::Refused`].
//!
//! Whoever carries the bytes (the host) can drop them and can read nothing of the secret.
#![forbid(unsafe_code)]

mod base64;
pub mod frame;
mod ids;
mod message;
pub mod policy;
mod runtime_data;
mod sealed;
mod wrap;

pub use ids::{IdError, KeyId, Nonce, PublicKey};
pub use message::{
    Challenge, MessageError, Refusal, RefusedBy, ReleaseRequest, Released, Request, Response,
    UnmetClaim,
};
pub use policy::ReleasePolicy;
pub use runtime_data::{RuntimeData, RuntimeDataError};
pub use sealed::{
    MAX_SEALED_BYTES, Place, SEALING_KEY_BYTES, Sealed, SealedError, holds_sealed, is_sealed, seal,
};
pub use wrap::{GuestKey, KeyKind, Secret, Seed, ServiceKey, WrapContext, WrapError, WrappedKey};

/// Name and version of this protocol: part of every message, of the runtime data and of the key wrapping.
pub const PROTOCOL: &str = "anchorhold-key-release/1";

/// Longest secret that can be stored and released, bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;
