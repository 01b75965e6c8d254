//! The policy document: initdata and AKS forms, canonical bytes, digest, HOST_DATA rule, version rules.
//!
//! The bytes that were handed over are hashed, then those bytes are parsed; nothing is written again in between.
//! A digest fits the TEE's field exactly or is refused: it is never cut, though the convention allows it, since a cut
//! digest is a weaker one and nobody would see it. What the Kata runtime writes into TDX's longer field, a whole digest
//! with zeros behind it, is there for people to compare ([`PolicyDocument::kata_mrconfigid`]); no check rests on it.
#![forbid(unsafe_code)]

mod aks;
mod disk;
mod document;
mod fragment;
mod gzip;
mod initdata;
mod settings;
mod toml_text;

pub use aks::AksPolicy;
pub use document::{AKS_ANNOTATION, INITDATA_ANNOTATION, PolicyDocument};
pub use fragment::{
    FRAGMENT_ANNOTATION, MAX_FRAGMENTS, fragment_to_annotation, fragments_from_annotation,
};
pub use gzip::{MAX_PACKED_BYTES, MAX_UNPACKED_BYTES};
pub use initdata::{Algorithm, InitData, InitDataDigest, POLICY_KEY, SETTINGS_KEY, VERSION};
pub use settings::{GuestSettings, KeyService, ServiceAddress, ServicePublicKey};

/// Why bytes or text are not a policy document, or a document does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Longer than its named maximum.
    #[error("{what} is too large: found {found} bytes, expected at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length, bytes; for packed data that is cut off while unpacking, the first length over the maximum.
        found: usize,
        /// The maximum, bytes.
        max: usize,
    },
    /// Not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// What is not.
        what: &'static str,
    },
    /// Not the TOML that is expected: syntax, unknown, missing or repeated keys, wrong types.
    #[error("{what} does not fit: {detail}")]
    Toml {
        /// The document.
        what: &'static str,
        /// What the parser says.
        detail: String,
    },
    /// Another version of the initdata document.
    #[error("initdata version: found {found:?}, expected {VERSION:?}")]
    Version {
        /// The version found, at most 80 characters of it.
        found: String,
    },
    /// No `policy.rego` in the initdata document.
    #[error("initdata has no policy.rego")]
    NoPolicy,
    /// A text that TOML cannot hold.
    #[error("initdata value {key:?} holds a character that TOML does not allow")]
    Unwritable {
        /// The key of the value.
        key: String,
    },
    /// The digest has another length than the TEE's field.
    #[error("initdata algorithm: found {found}, expected {expected} for {field}")]
    Algorithm {
        /// The document's algorithm.
        found: Algorithm,
        /// The algorithm whose digest fits.
        expected: Algorithm,
        /// The TEE's field.
        field: &'static str,
    },
    /// Not standard base64 with padding.
    #[error("annotation {annotation} is not base64")]
    Base64 {
        /// The annotation's key.
        annotation: &'static str,
    },
    /// Not exactly one gzip member.
    #[error("{what} is not one gzip member: {detail}")]
    Gzip {
        /// What holds it.
        what: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// Not an initdata disk.
    #[error("initdata disk: {detail}")]
    Disk {
        /// What does not fit.
        detail: &'static str,
    },
    /// Neither annotation, or both.
    #[error(
        "policy annotations: found {found}, expected exactly one of {INITDATA_ANNOTATION} and {AKS_ANNOTATION}"
    )]
    Annotations {
        /// How many there are.
        found: usize,
    },
    /// A service address of another form.
    #[error("key_service.address: found {found:?}, expected vsock://CID:PORT")]
    Address {
        /// The text found, at most 80 characters of it.
        found: String,
    },
    /// A public key of another form or length.
    #[error("key_service.public_key: found {found:?}, expected standard base64 of 32 bytes")]
    ServicePublicKey {
        /// The text found, at most 80 characters of it.
        found: String,
    },
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
