//! Fixed-size digest values: parsed strictly, compared in constant time, never padded or cut.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use subtle::ConstantTimeEq;

/// A digest of exactly `N` bytes. Text form: `2 * N` lower-case hexadecimal digits.
///
/// Equality takes the same time whatever the contents, so that a guess cannot be refined byte by byte.
#[derive(Clone, Copy, Eq)]
pub struct Digest<const N: usize>([u8; N]);

/// SHA-256: layer, manifest and diff ids, dm-verity root hashes, SEV-SNP HOST_DATA.
pub type Sha256 = Digest<32>;
/// SHA-384: SEV-SNP launch measurement, TDX MRTD and MRCONFIGID.
pub type Sha384 = Digest<48>;
/// SHA-512: initdata digests where the document asks for it.
pub type Sha512 = Digest<64>;

/// Why a text or a byte string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The value has another length than the digest.
    #[error("digest has {found} bytes, expected {expected}")]
    Length {
        /// Length found, bytes.
        found: usize,
        /// Length expected, bytes.
        expected: usize,
    },
    /// The text holds something other than lower-case hexadecimal digits.
    #[error("digest is not lower-case hexadecimal: {text:?}")]
    Hex {
        /// The offending text, at most 160 characters of it.
        text: String,
    },
    /// An OCI digest that does not start with `sha256:`.
    #[error("digest algorithm is not sha256: {text:?}")]
    Algorithm {
        /// The offending text, at most 160 characters of it.
        text: String,
    },
}

impl<const N: usize> Digest<N> {
    /// Wraps bytes that are already a digest.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order the hash function gives them.
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl Digest<32> {
    /// SHA-256 (FIPS 180-4) of `data`.
    pub fn of(data: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(data.as_ref()).into())
    }

    /// Reads the OCI text form `sha256:<64 hex>` (OCI image specification, descriptor, digests).
    ///
    /// # Errors
    /// [`DigestError::Algorithm`] for another prefix, else as [`FromStr`].
    pub fn from_oci(text: &str) -> Result<Self, DigestError> {
        match text.strip_prefix("sha256:") {
            Some(hex) => hex.parse(),
            None => Err(DigestError::Algorithm { text: shortened(text) }),
        }
    }

    /// The OCI text form `sha256:<64 hex>`.
    pub fn to_oci(&self) -> String {
        format!("sha256:{self}")
    }
}

impl Digest<48> {
    /// SHA-384 (FIPS 180-4) of `data`.
    pub fn of(data: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha384::digest(data.as_ref()).into())
    }
}

impl Digest<64> {
    /// SHA-512 (FIPS 180-4) of `data`.
    pub fn of(data: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha512::digest(data.as_ref()).into())
    }
}

impl<const N: usize> PartialEq for Digest<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> PartialOrd for Digest<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Byte order, for maps and sorted output; not constant time.
impl<const N: usize> Ord for Digest<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<const N: usize> std::hash::Hash for Digest<N> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<const N: usize> TryFrom<&[u8]> for Digest<N> {
    type Error = DigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| DigestError::Length { found: bytes.len(), expected: N })
    }
}

impl<const N: usize> FromStr for Digest<N> {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex { text: shortened(text) });
        }
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| DigestError::Length { found: text.len() / 2, expected: N })?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest<{N}>({self})")
    }
}

impl<const N: usize> Serialize for Digest<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Digest<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, expect: Result<(), DigestError>) {
        assert_eq!(text.parse::<Sha256>().map(drop), expect);
    }

    #[test]
    fn only_exact_lower_case_hex_is_a_digest() {
        check(EMPTY, Ok(()));
        check(&EMPTY[2..], Err(DigestError::Length { found: 31, expected: 32 }));
        check(&format!("{EMPTY}00"), Err(DigestError::Length { found: 33, expected: 32 }));
        check(&EMPTY[1..], Err(DigestError::Length { found: 31, expected: 32 }));
        let upper = EMPTY.to_uppercase();
        check(&upper, Err(DigestError::Hex { text: upper.clone() }));
    }

    #[test]
    fn known_answers() {
        assert_eq!(Sha256::of(b"").to_string(), EMPTY);
        assert!(Sha384::of(b"abc").to_string().starts_with("cb00753f45a35e8bb5a03d699ac65007"));
        assert!(Sha512::of(b"abc").to_string().starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn oci_form_names_its_algorithm() {
        let digest = Sha256::of(b"x");
        assert_eq!(Sha256::from_oci(&digest.to_oci()), Ok(digest));
        let wrong = digest.to_oci().replace("sha256", "sha512");
        assert_eq!(Sha256::from_oci(&wrong), Err(DigestError::Algorithm { text: wrong.clone() }));
    }

    proptest! {
        #[test]
        fn text_and_json_round_trip(bytes in any::<[u8; 32]>()) {
            let digest = Sha256::new(bytes);
            prop_assert_eq!(digest.to_string().parse::<Sha256>().unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sha256>(&json).unwrap(), digest);
        }

        #[test]
        fn one_changed_bit_is_another_digest(bytes in any::<[u8; 32]>(), bit in 0usize..256) {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(Sha256::new(bytes), Sha256::new(other));
        }
    }
}
