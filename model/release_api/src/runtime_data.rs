//! What a guest puts into its report: the exact bytes whose SHA-256 is REPORT_DATA.

use serde::{Deserialize, Serialize};

use crate::{KeyId, Nonce, PROTOCOL, PublicKey};

/// Longest runtime data, bytes: every field has a bound well below this.
const MAX_BYTES: usize = 1024;

/// What every version of [`PROTOCOL`] begins with.
const RESERVED: &[u8] = b"anchorhold-key-release/";

/// The statement that a guest makes through its report: "for this challenge, I ask for this key, wrapped to this public key".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeData {
    /// The service's challenge: the report is not older than it.
    pub nonce: Nonce,
    /// The key asked for: a report made to get one key gets no other.
    pub key_id: KeyId,
    /// To whom the key is wrapped.
    pub public_key: PublicKey,
}

/// Why bytes are not runtime data of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDataError {
    /// Too long to be runtime data.
    #[error("runtime data has {found} bytes, expected at most {MAX_BYTES}")]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// Not the JSON object of this protocol.
    #[error("runtime data is not the JSON object of {PROTOCOL}")]
    Json(#[source] serde_json::Error),
    /// Another protocol or version.
    #[error("runtime data is for protocol {found:?}, expected {PROTOCOL:?}")]
    Protocol {
        /// The protocol named in the data.
        found: String,
    },
    /// The same values written with other bytes: one statement has one form.
    #[error("runtime data is not written in its canonical form")]
    NotCanonical,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    protocol: std::borrow::Cow<'a, str>,
    nonce: Nonce,
    key_id: KeyId,
    public_key: PublicKey,
}

impl RuntimeData {
    /// Whether `bytes` could be a statement of this protocol in any version: then nobody but the release client may have a report over them.
    /// Every statement holds the protocol's name as it is, for the canonical form escapes none of its characters.
    pub fn is_reserved(bytes: &[u8]) -> bool {
        bytes.windows(RESERVED.len()).any(|window| window == RESERVED)
    }

    /// The one byte form: JSON, fields in the order protocol, nonce, key_id, public_key, no spaces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            protocol: PROTOCOL.into(),
            nonce: self.nonce,
            key_id: self.key_id.clone(),
            public_key: self.public_key,
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// Reads exactly what [`Self::to_bytes`] writes.
    ///
    /// # Errors
    /// [`RuntimeDataError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RuntimeDataError> {
        if bytes.len() > MAX_BYTES {
            return Err(RuntimeDataError::TooLong { found: bytes.len() });
        }
        let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(RuntimeDataError::Json)?;
        if wire.protocol != PROTOCOL {
            return Err(RuntimeDataError::Protocol { found: wire.protocol.into_owned() });
        }
        let data = Self { nonce: wire.nonce, key_id: wire.key_id, public_key: wire.public_key };
        if data.to_bytes() == bytes { Ok(data) } else { Err(RuntimeDataError::NotCanonical) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> RuntimeData {
        RuntimeData {
            nonce: Nonce::new([1; 32]),
            key_id: "demo/message".parse().unwrap(),
            public_key: PublicKey::new([2; 32]),
        }
    }

    const TEXT: &str = concat!(
        r#"{"protocol":"anchorhold-key-release/1","nonce":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","#,
        r#""key_id":"demo/message","public_key":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}"#
    );

    #[test]
    fn every_version_of_a_statement_is_reserved() {
        assert!(PROTOCOL.as_bytes().starts_with(RESERVED));
        assert!(RuntimeData::is_reserved(&data().to_bytes()));
        assert!(RuntimeData::is_reserved(TEXT.replace("release/1", "release/2").as_bytes()));
        assert!(!RuntimeData::is_reserved(b"{}") && !RuntimeData::is_reserved(b""));
    }

    #[test]
    fn one_statement_has_one_byte_form() {
        assert_eq!(data().to_bytes(), TEXT.as_bytes());
        assert_eq!(RuntimeData::parse(TEXT.as_bytes()).unwrap(), data());
        let refused = [
            TEXT.replace(":\"demo", ": \"demo"),
            format!("{TEXT} "),
            format!("{TEXT}{TEXT}"),
            TEXT.replace("release/1", "release/2"),
            TEXT.replace("demo/message", "demo\\/message"),
            TEXT.replace("\"nonce\"", "\"other\":1,\"nonce\""),
            TEXT.replace("\"key_id\"", "\"key_id\":\"a\",\"key_id\""),
            TEXT.replace("AQEBAQE=", "AQEBAQF="),
            TEXT[..TEXT.len() - 1].to_owned(),
            " ".repeat(MAX_BYTES + 1),
        ];
        for text in refused {
            assert!(RuntimeData::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
