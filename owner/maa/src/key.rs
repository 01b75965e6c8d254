//! One signing key with the certificate that it is published in.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::jwks::Jwk;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3), 2048 bits: what MAA uses and its clients expect.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 section 3.4).
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    /// The name in headers and key sets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library cannot make the key or its certificate.
    #[error("signing key cannot be made")]
    Make(#[source] rcgen::Error),
    /// The bytes are no private key of the algorithm.
    #[error("stored bytes are no private key for {algorithm}", algorithm = .algorithm.name())]
    Private {
        /// The algorithm they are stored for.
        algorithm: Algorithm,
    },
    /// The bytes are no certificate of this key.
    #[error("stored certificate is not one of its private key")]
    Certificate,
    /// The library cannot sign.
    #[error("signing failed")]
    Sign,
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// A key that signs tokens.
pub(crate) struct SigningKey {
    private: Private,
    public: Jwk,
    pkcs8: Zeroizing<Vec<u8>>,
    certificate: Vec<u8>,
    algorithm: Algorithm,
}

impl SigningKey {
    /// A fresh key with a self-signed certificate whose common name is `issuer`, as MAA's instances have. The certificate is a wrapping
    /// for the public key: who relies on it has it from the issuer's own HTTPS address, and dates in it would say nothing of the key.
    pub(crate) fn generate(algorithm: Algorithm, issuer: &str) -> Result<Self, KeyError> {
        let pair = match algorithm {
            Algorithm::Rs256 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
            Algorithm::Es256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        };
        let pair = pair.map_err(KeyError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, issuer);
        let certificate = params.self_signed(&pair).map_err(KeyError::Make)?;
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        Self::new(algorithm, pkcs8, certificate.der().to_vec())
    }

    /// A stored key.
    pub(crate) fn new(
        algorithm: Algorithm,
        pkcs8: Zeroizing<Vec<u8>>,
        certificate: Vec<u8>,
    ) -> Result<Self, KeyError> {
        let unusable = |_| KeyError::Private { algorithm };
        let private = match algorithm {
            Algorithm::Rs256 => Private::Rsa(RsaKeyPair::from_pkcs8(&pkcs8).map_err(unusable)?),
            Algorithm::Es256 => Private::Ec(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
                    .map_err(unusable)?,
            ),
        };
        let public = Jwk::of_certificate(&certificate).ok_or(KeyError::Certificate)?;
        let key = Self { private, public, pkcs8, certificate, algorithm };
        // A certificate of another key would publish a key that no token verifies with.
        let signature = key.sign(b"self-test")?;
        match key.public.verifies(b"self-test", &signature) {
            true => Ok(key),
            false => Err(KeyError::Certificate),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn public(&self) -> &Jwk {
        &self.public
    }

    pub(crate) fn pkcs8(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| KeyError::Sign)?;
                Ok(signature)
            }
            Private::Ec(key) => {
                let signature = key.sign(&random, message).map_err(|_| KeyError::Sign)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

/// MAA's key id: standard base64 of SHA-256 over the PEM text of the public key, its last newline and a zero byte.
pub(crate) fn key_id(spki_pem: &str) -> String {
    let text = [spki_pem.as_bytes(), &[0]].concat();
    STANDARD.encode(digest(&SHA256, &text).as_ref())
}
