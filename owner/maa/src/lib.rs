//! Attestation tokens as Microsoft Azure Attestation makes them: request to verified claims to signed token, and back.
//!
//! | step | where |
//! |---|---|
//! | request body to report, certificates, runtime data | [`request`] |
//! | report to claims, by `ah_verifier` | [`AttestationService`] |
//! | claims to JWT, signed by the current key of a [`KeyRing`] | [`AttestationService`] |
//! | the routes over HTTP | [`router`] |
//! | JWT to claims, by the keys that its issuer publishes | [`verify_token`] |
//!
//! A client is anybody: what it sends proves itself or is refused. A token says what the report said, no more: whether that is good
//! enough is for the release policy of a key to judge.
#![forbid(unsafe_code)]

mod base64url;
mod claims;
mod clock;
mod error;
mod jwks;
mod key;
pub mod request;
mod ring;
mod routes;
mod service;
mod token;
mod verifiers;

pub use clock::Clock;
pub use error::AttestError;
pub use jwks::{Jwk, Jwks};
pub use key::{Algorithm, KeyError};
pub use ring::{KeyRing, MemoryKeys, RingError, RingOptions, SigningKeys, StoreError};
pub use routes::{MAX_BODY_BYTES, router, verified_at_once};
pub use service::{
    AttestationService, EndorsementVerifier, MAA_LIFETIME, QuoteVerifier, Settings, SettingsError,
    VerifiedQuote,
};
pub use token::{MAX_TOKEN_BYTES, TokenError, VerifiedToken, verify_token};
pub use verifiers::{QuoteCollateralSource, TdxVerifier, UvmVerifier};
