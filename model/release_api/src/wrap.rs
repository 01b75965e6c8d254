//! A secret wrapped to one guest's fresh key: HPKE (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
//!
//! X25519, since every 32-byte string is a usable public key (no point to validate, the all-zero result is refused by
//! RFC 9180 section 7.1.4), the arithmetic has no secret branches, and it costs the guest's binary least; its strength is that
//! of AES-128, above what the SHA-256 binding in REPORT_DATA gives against collisions. AES-256-GCM is what keys are stored under.
//!
//! Auth mode (RFC 9180 section 5.1.3): the service proves that it holds the private key of the public key it is known by.
//! Without that anybody who sees the guest's public key, the host first of all, could hand the guest a key of his own
//! choice, and the guest would protect its data with a key that the host knows.
//!
//! `info` and AAD are the same bytes but for their first label: protocol, kind, key id and SHA-256 of the runtime data, each with its
//! length. So a wrapped key opens only for the request that it answers.

use ah_digest::Sha256;
use hpke::aead::{AeadTag, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{CryptoRng, RngCore};
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{KeyId, MAX_SECRET_BYTES, PROTOCOL, PublicKey};

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

/// Length of an AES-GCM tag, bytes.
const TAG_BYTES: usize = 16;

/// 32 fresh random bytes that a caller with a random source hands in: this zone has none.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// Wraps 32 bytes from a cryptographic random source, to be used for nothing else.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

/// What kind of bytes a key is; told to the guest, authenticated with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// A symmetric key (JWK key type `oct`).
    Oct,
    /// Any other bytes: a password, a PEM file.
    Opaque,
}

impl KeyKind {
    /// The name used in messages and in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oct => "oct",
            Self::Opaque => "opaque",
        }
    }
}

/// The bytes of a key; wiped from memory when dropped, never printed.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    ///
    /// # Errors
    /// [`WrapError::SecretLength`] for an empty secret or one over [`MAX_SECRET_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, WrapError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            1..=MAX_SECRET_BYTES => Ok(Self(bytes)),
            found => Err(WrapError::SecretLength { found }),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// What a wrapped key is bound to beside the guest's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapContext {
    /// Which key.
    pub key_id: KeyId,
    /// What kind of key.
    pub kind: KeyKind,
    /// SHA-256 of the runtime data of the request that is answered.
    pub runtime_data: Sha256,
}

impl WrapContext {
    fn bytes(&self, label: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let parts: [&[u8]; 5] = [
            PROTOCOL.as_bytes(),
            label.as_bytes(),
            self.kind.name().as_bytes(),
            self.key_id.as_str().as_bytes(),
            self.runtime_data.as_bytes(),
        ];
        for part in parts {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// A secret that only the guest which asked can open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// The service's public key; the reader compares it with the one it expects.
    pub service: PublicKey,
    /// HPKE's encapsulated key.
    pub encapsulated: PublicKey,
    /// Ciphertext and tag.
    #[serde(with = "crate::base64")]
    pub ciphertext: Vec<u8>,
}

/// Why a secret cannot be wrapped or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// Empty or too long.
    #[error("secret has {found} bytes, expected 1 to {MAX_SECRET_BYTES}")]
    SecretLength {
        /// Length found, bytes.
        found: usize,
    },
    /// A public key with which X25519 gives no secret.
    #[error("public key is a point of small order, which agrees on no secret")]
    WeakPublicKey,
    /// Another key service answered than the one the guest was told to trust.
    #[error("wrapped key comes from key service {found}, expected {expected}")]
    OtherService {
        /// Key of the service that answered.
        found: PublicKey,
        /// Key of the expected service.
        expected: PublicKey,
    },
    /// The ciphertext is for another private key, another request or another key, is from another service, or was altered.
    #[error(
        "wrapped key does not open: it was made for another request or key, or was altered on the way"
    )]
    DoesNotOpen,
    /// The HPKE library did something unforeseen; nothing of the secret leaves.
    #[error("wrapping failed inside the HPKE implementation")]
    Internal,
}

/// The guest's private key of one exchange; never leaves the guest, wiped when dropped.
pub struct GuestKey {
    private: PrivateKey,
    public: PublicKey,
}

impl GuestKey {
    /// The key pair that RFC 9180 section 7.1.3 derives from `seed`.
    pub fn from_seed(seed: &Seed) -> Self {
        let (private, public) = X25519HkdfSha256::derive_keypair(seed.0.as_slice());
        Self { private, public: PublicKey::new(public.to_bytes().into()) }
    }

    /// The public half, for the runtime data.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Opens what `service` wrapped for this key in answer to the request that `context` describes.
    ///
    /// # Errors
    /// [`WrapError`]; which part of the binding differed cannot be told apart.
    pub fn open(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        service: &PublicKey,
    ) -> Result<Secret, WrapError> {
        if wrapped.service != *service {
            return Err(WrapError::OtherService { found: wrapped.service, expected: *service });
        }
        let length =
            wrapped.ciphertext.len().checked_sub(TAG_BYTES).ok_or(WrapError::DoesNotOpen)?;
        if length > MAX_SECRET_BYTES {
            return Err(WrapError::SecretLength { found: length });
        }
        let (body, tag) =
            wrapped.ciphertext.split_at_checked(length).ok_or(WrapError::DoesNotOpen)?;
        let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(|_| WrapError::DoesNotOpen)?;
        let mut secret = Zeroizing::new(body.to_vec());
        hpke::single_shot_open_in_place_detached::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Auth(parse_public(&wrapped.service)?),
            &self.private,
            &parse_encapsulated(&wrapped.encapsulated)?,
            &context.bytes("info"),
            &mut secret,
            &context.bytes("aad"),
            &tag,
        )
        .map_err(|_| WrapError::DoesNotOpen)?;
        Secret::new(std::mem::take(&mut *secret))
    }
}

/// The key pair that a key service is known by.
pub struct ServiceKey {
    private: PrivateKey,
    public: PublicKey,
}

impl ServiceKey {
    /// The key pair that RFC 9180 section 7.1.3 derives from `seed`; the seed is what the service keeps.
    pub fn from_seed(seed: &Seed) -> Self {
        let (private, public) = X25519HkdfSha256::derive_keypair(seed.0.as_slice());
        Self { private, public: PublicKey::new(public.to_bytes().into()) }
    }

    /// The public half, by which guests know the service.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Wraps `secret` to `guest`, bound to `context`. `seed` makes the ephemeral key: a fresh one for every call.
    ///
    /// # Errors
    /// [`WrapError::WeakPublicKey`] when `guest` is of small order.
    pub fn wrap(
        &self,
        secret: &Secret,
        guest: &PublicKey,
        context: &WrapContext,
        seed: Seed,
    ) -> Result<WrappedKey, WrapError> {
        let mode = OpModeS::Auth((self.private.clone(), parse_public(&self.public)?));
        let mut buffer = Zeroizing::new(secret.as_bytes().to_vec());
        let mut rng = OneSeed { seed: Some(seed), misused: false };
        let (encapsulated, tag) =
            hpke::single_shot_seal_in_place_detached::<AesGcm256, HkdfSha256, X25519HkdfSha256, _>(
                &mode,
                &parse_public(guest)?,
                &context.bytes("info"),
                &mut buffer,
                &context.bytes("aad"),
                &mut rng,
            )
            .map_err(|_| WrapError::WeakPublicKey)?;
        if rng.misused || rng.seed.is_some() {
            return Err(WrapError::Internal);
        }
        let mut ciphertext = std::mem::take(&mut *buffer);
        ciphertext.extend_from_slice(&tag.to_bytes());
        let encapsulated = PublicKey::new(encapsulated.to_bytes().into());
        Ok(WrappedKey { service: self.public, encapsulated, ciphertext })
    }
}

fn parse_public(key: &PublicKey) -> Result<<X25519HkdfSha256 as Kem>::PublicKey, WrapError> {
    <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(key.as_bytes())
        .map_err(|_| WrapError::Internal)
}

fn parse_encapsulated(
    key: &PublicKey,
) -> Result<<X25519HkdfSha256 as Kem>::EncappedKey, WrapError> {
    <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(key.as_bytes())
        .map_err(|_| WrapError::Internal)
}

/// Hands a seed out once, in one piece; any other use is remembered and makes the wrapping fail.
struct OneSeed {
    seed: Option<Seed>,
    misused: bool,
}

impl RngCore for OneSeed {
    fn next_u32(&mut self) -> u32 {
        self.misused = true;
        0
    }

    fn next_u64(&mut self) -> u64 {
        self.misused = true;
        0
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        match self.seed.take() {
            Some(seed) if out.len() == seed.0.len() => out.copy_from_slice(seed.0.as_slice()),
            _ => {
                self.misused = true;
                out.zeroize();
            }
        }
    }
}

impl CryptoRng for OneSeed {}

#[cfg(test)]
#[path = "wrap_tests.rs"]
mod tests;
