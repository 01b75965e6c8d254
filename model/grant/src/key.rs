//! Keys: Ed25519 (RFC 8032), pure, keys of small order refused.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text or byte string that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "public key: found {found:?}, expected standard base64 of an Ed25519 public key (32 bytes)"
)]
pub struct KeyError {
    /// The text found, at most 80 characters of it.
    found: String,
}

/// A public key by which a policy knows somebody. Text form: standard base64 with padding of the 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerKey(VerifyingKey);

impl OwnerKey {
    /// Whether `signature` over `domain` and `body` was made by this key (RFC 8032, section 5.1.7, without malleable forms).
    pub(crate) fn has_signed(&self, domain: &[u8], body: &[u8], signature: &[u8; 64]) -> bool {
        let message = [domain, body].concat();
        self.0.verify_strict(&message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl FromStr for OwnerKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        // Under a key of small order one signature fits many messages.
        let key = key.filter(|key| !key.is_weak());
        key.map(Self).ok_or_else(|| KeyError { found: text.chars().take(80).collect() })
    }
}

impl fmt::Display for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl Serialize for OwnerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OwnerKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A private key; its bytes are wiped when it goes.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From the 32 bytes that RFC 8032 calls the private key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key that others know it by.
    pub fn public(&self) -> OwnerKey {
        OwnerKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, domain: &[u8], body: &[u8]) -> [u8; 64] {
        self.0.sign(&[domain, body].concat()).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2: a message of one byte.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits: Vec<char> = hex.chars().collect();
            let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
            digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
        };
        let seed = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let secret = SecretKey::from_seed(&seed.try_into().unwrap());
        let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(secret.public().to_string(), STANDARD.encode(public));
        let signature = secret.sign(b"", &[0x72]);
        let expect = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                      085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(signature.to_vec(), bytes(expect));
        assert!(secret.public().has_signed(b"", &[0x72], &signature));
        assert!(!secret.public().has_signed(b"x", &[0x72], &signature));
    }

    #[test]
    fn attack_a_key_under_which_anything_is_signed_is_refused() {
        let own = SecretKey::from_seed(&[7; 32]).public();
        assert_eq!(own.to_string().parse::<OwnerKey>().unwrap(), own);
        // The neutral element, and the point of order two.
        let one = [&[1][..], &[0; 31]].concat();
        let two = [&[0xec][..], &[0xff; 30], &[0x7f]].concat();
        for weak in [one, two, vec![0; 32]] {
            assert!(STANDARD.encode(weak).parse::<OwnerKey>().is_err());
        }
        for bad in ["", "AAAA", "not base64", &STANDARD.encode([7; 33])] {
            assert!(bad.parse::<OwnerKey>().is_err(), "{bad}");
        }
    }
}
