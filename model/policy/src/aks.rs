//! The older form that AKS uses: the policy text alone, SHA-256 of it in HOST_DATA.

use ah_digest::Sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::DocumentError;
use crate::document::AKS_ANNOTATION;
use crate::gzip::MAX_UNPACKED_BYTES;

/// A policy text without an initdata document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AksPolicy {
    text: String,
}

impl AksPolicy {
    /// Wraps a policy text.
    ///
    /// # Errors
    /// [`DocumentError::TooLarge`].
    pub fn new(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_UNPACKED_BYTES {
            let (found, max) = (text.len(), MAX_UNPACKED_BYTES);
            return Err(DocumentError::TooLarge { what: "policy", found, max });
        }
        Ok(Self { text: text.to_owned() })
    }

    /// Reads the annotation's value: standard base64 of the text.
    ///
    /// # Errors
    /// Base64, UTF-8, size.
    pub fn from_annotation(value: &str) -> Result<Self, DocumentError> {
        let bytes = STANDARD
            .decode(value)
            .map_err(|_| DocumentError::Base64 { annotation: AKS_ANNOTATION })?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| DocumentError::NotUtf8 { what: "policy" })?;
        Self::new(text)
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        STANDARD.encode(&self.text)
    }

    /// The policy's Rego text.
    pub fn policy(&self) -> &str {
        &self.text
    }

    /// SEV-SNP's HOST_DATA: SHA-256 of the text's bytes.
    pub fn host_data_snp(&self) -> Sha256 {
        Sha256::of(&self.text)
    }
}
