//! The vault's signed answer to a release: a compact JWS (RFC 7515) with the signer's certificate chain.

use ah_digest::Sha256;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::encoding::encode_base64url;

/// Why answers cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not an RSA private key in PKCS#8.
    #[error("the answer-signing key is no RSA private key in PKCS#8 of at least 2048 bits")]
    Key,
    /// No certificate.
    #[error("the answer-signing key has no certificate")]
    NoCertificate,
    /// The crypto library failed.
    #[error("signing failed")]
    Failed,
}

/// Signs answers under the key of a certificate whose name clients compare with the address that they called.
pub struct AnswerSigner {
    key: KeyPair,
    header: String,
}

impl AnswerSigner {
    /// `key` is PKCS#8; `chain` is DER, the key's own certificate first, the root last.
    ///
    /// # Errors
    /// [`SignerError`].
    pub fn new(key: &[u8], chain: &[Vec<u8>]) -> Result<Self, SignerError> {
        let key = KeyPair::from_pkcs8(key).map_err(|_| SignerError::Key)?;
        let leaf = Sha256::of(chain.first().ok_or(SignerError::NoCertificate)?);
        let x5c: Vec<String> =
            chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        let header = json!({
            "alg": "RS256",
            "kid": leaf.to_string(),
            "typ": "JWT",
            "x5c": x5c,
            "x5t#S256": encode_base64url(leaf.as_bytes()),
        });
        Ok(Self { key, header: encode_base64url(header.to_string()) })
    }

    pub(crate) fn sign(&self, payload: &Value) -> Result<String, SignerError> {
        let text = format!("{}.{}", self.header, encode_base64url(payload.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| SignerError::Failed)?;
        Ok(format!("{text}.{}", encode_base64url(signature)))
    }
}
