//! Signed tree heads: the whole log in 32 bytes, under the log's own key.

use std::time::SystemTime;

use ah_digest::Sha256;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What a signature over a head begins with.
const LABEL: &str = "anchorhold decision log head v1";

/// The state of a log, said by the log: size, root and time under an Ed25519 signature (RFC 8032).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The log's public key, standard base64 of 32 bytes; a log is its key.
    pub public_key: String,
    /// Entries.
    pub size: u64,
    /// Root of the Merkle tree over them (RFC 9162 section 2.1.1).
    pub root: Sha256,
    /// When the log said so, RFC 3339, UTC.
    pub time: String,
    /// Standard base64 of 64 bytes, over label, public key, size, root and time, each with a line feed behind it.
    pub signature: String,
}

/// Why a head is not what a log said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signature of the log's head does not verify under the log's key {public_key}")]
pub struct HeadError {
    /// The key in the head.
    pub public_key: String,
}

impl SignedHead {
    pub(crate) fn sign(key: &Ed25519KeyPair, size: u64, root: Sha256, now: SystemTime) -> Self {
        let time = jiff::Timestamp::try_from(now).map(|time| time.to_string()).unwrap_or_default();
        let public_key = STANDARD.encode(key.public_key());
        let mut head = Self { public_key, size, root, time, signature: String::new() };
        head.signature = STANDARD.encode(key.sign(head.signed_text().as_bytes()));
        head
    }

    /// Checks the signature under the key that the head itself names: the caller says whether that is the right log.
    ///
    /// # Errors
    /// [`HeadError`] when it does not verify.
    pub fn verify(&self) -> Result<(), HeadError> {
        let refused = || HeadError { public_key: self.public_key.clone() };
        let key = STANDARD.decode(&self.public_key).map_err(|_| refused())?;
        let signature = STANDARD.decode(&self.signature).map_err(|_| refused())?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(self.signed_text().as_bytes(), &signature)
            .map_err(|_| refused())
    }

    fn signed_text(&self) -> String {
        format!("{LABEL}\n{}\n{}\n{}\n{}\n", self.public_key, self.size, self.root, self.time)
    }
}
