//! The forms of base64 that the sidecar's users write.

use base64::alphabet::{STANDARD as ALPHABET, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};

/// As Go's StdEncoding reads: padding is required, bits behind the last byte are not looked at.
const GO: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The URL alphabet, with or without padding.
const URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The URL alphabet with padding, which is how the sidecar writes to an attestation service.
const PADDED_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new());

/// Standard base64; line ends within are skipped.
pub(crate) fn standard(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    GO.decode(text)
}

pub(crate) fn to_standard(bytes: &[u8]) -> String {
    GO.encode(bytes)
}

pub(crate) fn url(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    URL.decode(text)
}

pub(crate) fn to_url(bytes: &[u8]) -> String {
    URL.encode(bytes)
}

pub(crate) fn to_padded_url(bytes: &[u8]) -> String {
    PADDED_URL.encode(bytes)
}
