//! Our own signed reference values: which launch measurements their signer stands for.
//!
//! The file is JSON: `{"version":1,"payload":"…","signature":"…"}`, both base64. The signature is Ed25519 over the text
//! `anchorhold reference values v1`, a line feed, and the payload's bytes; the payload is JSON of a [`ReferenceFile`]. What is
//! verified is the bytes received, and those are then read.

use std::time::{SystemTime, UNIX_EPOCH};

use ah_digest::Sha384;
use ah_evidence::Tee;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoOwned;

/// Largest file, bytes.
pub const MAX_REFERENCE_FILE_BYTES: usize = 1024 * 1024;

const CONTEXT: &[u8] = b"anchorhold reference values v1\n";
/// id-Ed25519 (RFC 8410, section 3).
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Reference values, as signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFile {
    /// When they were signed, seconds since 1970.
    pub issued_unix_s: u64,
    /// Until when they hold; null for no end.
    pub expires_unix_s: Option<u64>,
    /// The guests.
    pub guests: Vec<ReferenceGuest>,
}

/// One guest that the signer stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGuest {
    /// What it runs in.
    pub tee: Tee,
    /// Its launch measurement.
    pub measurement: Sha384,
    /// Virtual CPUs that the measurement is for.
    pub vcpus: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    payload: String,
    signature: String,
}

/// Why reference values are not signed, or not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The private key is not one of Ed25519.
    #[error("signing key is not an ed25519 private key in pkcs#8 (pem)")]
    SigningKey,
    /// The public key is not one of Ed25519.
    #[error("reference key is not an ed25519 public key in spki (pem)")]
    PublicKey,
    /// Larger than such files are.
    #[error("reference file has {found} bytes, expected at most {MAX_REFERENCE_FILE_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// Not the envelope that is expected.
    #[error("reference file is not the expected json document")]
    Envelope(#[source] serde_json::Error),
    /// Another version.
    #[error("reference file is of version {found}, expected 1")]
    Version {
        /// Version found.
        found: u32,
    },
    /// A part that is not base64.
    #[error("reference file's {part} is not base64")]
    Base64 {
        /// Which.
        part: &'static str,
    },
    /// Not signed by this key.
    #[error("reference file is not signed by the reference key")]
    Signature,
    /// Signed, but not reference values.
    #[error("reference file's payload is not as expected")]
    Payload(#[source] serde_json::Error),
    /// Not valid at this time.
    #[error(
        "reference file is not valid now: it was issued at {issued} and holds until {expires}, in seconds since 1970"
    )]
    Time {
        /// When it was issued.
        issued: u64,
        /// Until when it holds.
        expires: String,
    },
}

impl ReferenceError {
    /// Name of the check that was not passed.
    pub fn check(&self) -> &'static str {
        match self {
            Self::SigningKey | Self::PublicKey => "reference.key",
            Self::TooLarge { .. }
            | Self::Envelope(_)
            | Self::Version { .. }
            | Self::Base64 { .. }
            | Self::Payload(_) => "reference.encoding",
            Self::Signature => "reference.signature",
            Self::Time { .. } => "reference.time",
        }
    }
}

/// A key that signs reference values.
pub struct ReferenceSigner(Ed25519KeyPair);

impl ReferenceSigner {
    /// Reads a private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`ReferenceError::SigningKey`].
    pub fn from_pem(pem: &str) -> Result<Self, ReferenceError> {
        let wrong = |_| ReferenceError::SigningKey;
        let (label, document) = der::SecretDocument::from_pem(pem).map_err(wrong)?;
        if label != "PRIVATE KEY" {
            return Err(ReferenceError::SigningKey);
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(document.as_bytes())
            .map(Self)
            .map_err(|_| ReferenceError::SigningKey)
    }

    /// The public half, SPKI in PEM.
    ///
    /// # Errors
    /// [`ReferenceError::SigningKey`], if it cannot be written.
    pub fn public_key_pem(&self) -> Result<String, ReferenceError> {
        let key = der::asn1::BitString::from_bytes(self.0.public_key().as_ref());
        let spki = SubjectPublicKeyInfoOwned {
            algorithm: spki::AlgorithmIdentifier { oid: ID_ED25519, parameters: None },
            subject_public_key: key.map_err(|_| ReferenceError::SigningKey)?,
        };
        let pem = der::Document::encode_msg(&spki)
            .and_then(|document| document.to_pem("PUBLIC KEY", der::pem::LineEnding::LF));
        pem.map_err(|_| ReferenceError::SigningKey)
    }

    /// Signs reference values; the file's text.
    ///
    /// # Errors
    /// [`ReferenceError::Payload`], if they cannot be written.
    pub fn sign(&self, file: &ReferenceFile) -> Result<String, ReferenceError> {
        let payload = serde_json::to_vec(file).map_err(ReferenceError::Payload)?;
        let signature = self.0.sign(&signed(&payload));
        let envelope = Envelope {
            version: 1,
            payload: STANDARD.encode(&payload),
            signature: STANDARD.encode(signature),
        };
        serde_json::to_string(&envelope).map_err(ReferenceError::Envelope)
    }
}

/// A key whose reference values are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceKey(Vec<u8>);

impl ReferenceKey {
    /// Reads a public key, SPKI in PEM.
    ///
    /// # Errors
    /// [`ReferenceError::PublicKey`].
    pub fn from_pem(pem: &str) -> Result<Self, ReferenceError> {
        let read = der::Document::from_pem(pem.trim()).and_then(|(label, document)| {
            let spki: SubjectPublicKeyInfoOwned = document.decode_msg()?;
            Ok((label == "PUBLIC KEY", spki))
        });
        let Ok((true, spki)) = read else { return Err(ReferenceError::PublicKey) };
        let key = spki.subject_public_key.as_bytes().filter(|key| key.len() == 32);
        match (spki.algorithm.oid == ID_ED25519 && spki.algorithm.parameters.is_none(), key) {
            (true, Some(key)) => Ok(Self(key.to_vec())),
            _ => Err(ReferenceError::PublicKey),
        }
    }

    /// Verifies a file and reads what it says.
    ///
    /// # Errors
    /// [`ReferenceError`], a variant per cause.
    pub fn verify(&self, file: &[u8], now: SystemTime) -> Result<ReferenceFile, ReferenceError> {
        if file.len() > MAX_REFERENCE_FILE_BYTES {
            return Err(ReferenceError::TooLarge { found: file.len() });
        }
        let envelope: Envelope = serde_json::from_slice(file).map_err(ReferenceError::Envelope)?;
        if envelope.version != 1 {
            return Err(ReferenceError::Version { found: envelope.version });
        }
        let decode =
            |part, text: &str| STANDARD.decode(text).map_err(|_| ReferenceError::Base64 { part });
        let payload = decode("payload", &envelope.payload)?;
        let signature = decode("signature", &envelope.signature)?;
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&signed(&payload), &signature)
            .map_err(|_| ReferenceError::Signature)?;
        let file: ReferenceFile =
            serde_json::from_slice(&payload).map_err(ReferenceError::Payload)?;
        file.check_time(now)?;
        Ok(file)
    }
}

impl ReferenceFile {
    /// The measurements for `tee`.
    pub fn measurements(&self, tee: Tee) -> impl Iterator<Item = Sha384> {
        let of_tee = self.guests.iter().filter(move |guest| guest.tee == tee);
        of_tee.map(|guest| guest.measurement)
    }

    fn check_time(&self, now: SystemTime) -> Result<(), ReferenceError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let in_time = now >= self.issued_unix_s && self.expires_unix_s.is_none_or(|end| now <= end);
        let expires = || self.expires_unix_s.map_or("ever".to_owned(), |end| end.to_string());
        match in_time {
            true => Ok(()),
            false => Err(ReferenceError::Time { issued: self.issued_unix_s, expires: expires() }),
        }
    }
}

fn signed(payload: &[u8]) -> Vec<u8> {
    [CONTEXT, payload].concat()
}
