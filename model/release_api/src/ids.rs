//! Names and fixed-size values that messages carry.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest key id, bytes.
const MAX_KEY_ID_BYTES: usize = 128;

/// Name of a key: segments of `A-Z a-z 0-9 . _ -` that begin with a letter or digit, joined by `/`, at most 128 bytes.
///
/// The form needs no escaping in a URL path, a log line or a file name, and no segment is `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// Why a value is not a name or has the wrong size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or too long.
    #[error("key id has {found} bytes, expected 1 to {MAX_KEY_ID_BYTES}")]
    KeyIdLength {
        /// Length found, bytes.
        found: usize,
    },
    /// A segment is empty, begins with a sign, or holds another character.
    #[error(
        "key id segment {segment:?} is not allowed, expected letters, digits, '.', '_', '-', a letter or digit first"
    )]
    KeyIdSegment {
        /// The offending segment.
        segment: String,
    },
    /// A fixed-size value has another length.
    #[error("{what} has {found} bytes, expected 32")]
    Length {
        /// Which value.
        what: &'static str,
        /// Length found, bytes.
        found: usize,
    },
}

impl KeyId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.is_empty() || text.len() > MAX_KEY_ID_BYTES {
            return Err(IdError::KeyIdLength { found: text.len() });
        }
        match text.split('/').find(|segment| !is_segment(segment)) {
            Some(segment) => Err(IdError::KeyIdSegment { segment: segment.to_owned() }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

fn is_segment(segment: &str) -> bool {
    segment.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::Length { what: $what, found: bytes.len() })
            }
        }

        /// Standard base64.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                use base64::Engine as _;
                f.write_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                crate::base64::serialize(self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = crate::base64::deserialize(deserializer)?;
                Self::try_from(bytes.as_slice()).map_err(D::Error::custom)
            }
        }
    };
}

bytes32! {
    /// A challenge of the key service: 32 random bytes, used once.
    Nonce, "nonce"
}
bytes32! {
    /// An X25519 public key (RFC 7748): a guest's fresh one, or the one a key service is known by. JSON form: base64.
    PublicKey, "public key"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, allowed: bool) {
        assert_eq!(text.parse::<KeyId>().is_ok(), allowed, "{text:?}");
    }

    #[test]
    fn key_ids_need_no_escaping() {
        check("demo/message", true);
        check("a", true);
        check("a.b_c-D/0", true);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", "a/.b", "-a", "a b", "a%2fb", "a\n", "ä",
            "a\0",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn fixed_sizes_are_exact() {
        assert!(Nonce::try_from([0; 32].as_slice()).is_ok());
        assert_eq!(
            Nonce::try_from([0; 31].as_slice()),
            Err(IdError::Length { what: "nonce", found: 31 })
        );
        let json = serde_json::to_string(&PublicKey::new([1; 32])).unwrap();
        assert_eq!(json, "\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"");
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), PublicKey::new([1; 32]));
        assert!(
            serde_json::from_str::<PublicKey>(&json.replace('=', "")).is_err(),
            "padding is required"
        );
        assert!(
            serde_json::from_str::<PublicKey>(&json.replace("E=", "F=")).is_err(),
            "trailing bits are zero"
        );
    }
}
