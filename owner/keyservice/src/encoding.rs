//! Base64 as clients really write it: either alphabet, with or without padding (vault clients mix all four).

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const EITHER_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, EITHER_PADDING.with_encode_padding(false));

/// Reads any of the four forms of RFC 4648 sections 4 and 5; `None` for anything else, bits left over among it.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let url: String = text
        .chars()
        .map(|char| match char {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    URL.decode(url).ok()
}

/// RFC 4648 section 5 without padding, the form that JOSE and vaults write.
pub fn encode_base64url(bytes: impl AsRef<[u8]>) -> String {
    URL.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_forms_are_read_and_no_other() {
        let bytes = [0xfb, 0xef, 0xff, 0x01];
        for text in ["--__AQ", "--__AQ==", "++//AQ", "++//AQ=="] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_slice()), "{text}");
        }
        for text in ["--__A", "--__AR", "-- __AQ", "--__AQ\n", "ä"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
        assert_eq!(encode_base64url(bytes), "--__AQ");
    }
}
