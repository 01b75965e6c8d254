//! `CKM_RSA_AES_KEY_WRAP` (PKCS#11 v3.0 section 2.1.22): a fresh AES-256 key under RSA-OAEP, and the secret under that key (RFC 5649).

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepAlgorithm,
    OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use serde_json::{Map, Value};

use crate::encoding::decode_base64;
use crate::environment::{Environment, random32};

/// Shortest RSA key that secrets are wrapped to, bits.
const MIN_RSA_BITS: usize = 2048;

/// Hash of OAEP and of its mask function, by the names that vaults give the mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WrapAlgorithm {
    /// SHA-1, what a vault takes when nobody says.
    #[default]
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

impl WrapAlgorithm {
    /// The name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "CKM_RSA_AES_KEY_WRAP",
            Self::Sha256 => "RSA_AES_KEY_WRAP_256",
            Self::Sha384 => "RSA_AES_KEY_WRAP_384",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            Self::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Self::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Self::Sha384 => &OAEP_SHA384_MGF1SHA384,
        }
    }
}

/// Why a secret is not wrapped.
#[derive(Debug, thiserror::Error)]
pub enum KeyWrapError {
    /// No key in the token that a secret could be wrapped to.
    #[error(
        "token has no RSA key to wrap to: expected one in x-ms-runtime.keys with key_use \"enc\" or key_ops \"encrypt\""
    )]
    NoKey,
    /// It is not an RSA public key.
    #[error("the token's wrapping key is no RSA public key")]
    BadKey,
    /// It is too short.
    #[error("the token's wrapping key has {found} bits, expected at least {MIN_RSA_BITS}")]
    Short {
        /// Length found, bits.
        found: usize,
    },
    /// The crypto library failed; nothing of the secret leaves.
    #[error("wrapping failed")]
    Failed,
}

/// The key of a token that secrets are wrapped to.
pub(crate) struct WrappingKey {
    key: OaepPublicEncryptingKey,
    pub(crate) kid: Option<String>,
}

impl WrappingKey {
    /// The first RSA key of `x-ms-runtime.keys` that is for encryption.
    pub(crate) fn of_claims(claims: &Map<String, Value>) -> Result<Self, KeyWrapError> {
        let keys = claims
            .get("x-ms-runtime")
            .and_then(|runtime| runtime.get("keys"))
            .and_then(Value::as_array);
        let jwk = keys
            .into_iter()
            .flatten()
            .find(|jwk| is_for_encryption(jwk))
            .ok_or(KeyWrapError::NoKey)?;
        let number = |name| {
            let bytes = jwk
                .get(name)
                .and_then(Value::as_str)
                .and_then(decode_base64)
                .ok_or(KeyWrapError::BadKey)?;
            Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
        };
        let components = PublicKeyComponents { n: number("n")?, e: number("e")? };
        let key: PublicEncryptingKey = components.try_into().map_err(|_| KeyWrapError::BadKey)?;
        match key.key_size_bits() {
            MIN_RSA_BITS.. => {}
            found => return Err(KeyWrapError::Short { found }),
        }
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| KeyWrapError::BadKey)?;
        Ok(Self { key, kid: jwk.get("kid").and_then(Value::as_str).map(str::to_owned) })
    }

    /// The wrapped AES key, then the wrapped secret.
    pub(crate) fn wrap(
        &self,
        algorithm: WrapAlgorithm,
        secret: &[u8],
        environment: &dyn Environment,
    ) -> Result<Vec<u8>, KeyWrapError> {
        let kek = random32(environment).map_err(|_| KeyWrapError::Failed)?;
        let mut first = vec![0; self.key.ciphertext_size()];
        self.key
            .encrypt(algorithm.oaep(), kek.as_slice(), &mut first, None)
            .map_err(|_| KeyWrapError::Failed)?;
        Ok([first, wrap_padded(kek.as_slice(), secret)?].concat())
    }
}

fn is_for_encryption(jwk: &Value) -> bool {
    let is = |name: &str, value: &str| jwk.get(name).and_then(Value::as_str) == Some(value);
    let ops = jwk.get("key_ops").and_then(Value::as_array);
    is("kty", "RSA")
        && (is("key_use", "enc") || ops.is_some_and(|ops| ops.iter().any(|op| op == "encrypt")))
}

fn wrap_padded(kek: &[u8], secret: &[u8]) -> Result<Vec<u8>, KeyWrapError> {
    let failed = |_| KeyWrapError::Failed;
    let mut wrapped = vec![0; secret.len().saturating_add(15)];
    let length = AesKek::new(&AES_256, kek)
        .and_then(|kek| kek.wrap_with_padding(secret, &mut wrapped).map(|wrapped| wrapped.len()))
        .map_err(failed)?;
    wrapped.truncate(length);
    Ok(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::encode_base64url;
    use crate::environment::SystemEnvironment as System;
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
    use aws_lc_rs::signature::KeyPair as _;
    use serde_json::json;

    fn claims(
        size: KeySize,
        change: impl FnOnce(&mut Value),
    ) -> (Map<String, Value>, OaepPrivateDecryptingKey) {
        let pair = KeyPair::generate(size).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let private = PrivateDecryptingKey::from_pkcs8(der.as_ref()).unwrap();
        let n = encode_base64url(pair.public_key().modulus().big_endian_without_leading_zero());
        let mut jwk = json!({"kty":"RSA","kid":"k","key_ops":["encrypt"],"n":n,"e":"AQAB"});
        change(&mut jwk);
        let claims =
            json!({"x-ms-runtime":{"keys":[{"kty":"EC"}, jwk]}}).as_object().unwrap().clone();
        (claims, OaepPrivateDecryptingKey::new(private).unwrap())
    }

    #[test]
    fn only_the_private_key_and_the_right_hash_open() {
        let (claims, private) = claims(KeySize::Rsa2048, |_| {});
        let key = WrappingKey::of_claims(&claims).unwrap();
        assert_eq!(key.kid.as_deref(), Some("k"));
        for algorithm in [WrapAlgorithm::Sha1, WrapAlgorithm::Sha256, WrapAlgorithm::Sha384] {
            assert_eq!(WrapAlgorithm::named(algorithm.name()), Some(algorithm));
            for secret in [vec![7], vec![7; 32], vec![7; 1217]] {
                let wrapped = key.wrap(algorithm, &secret, &System).unwrap();
                let mut kek = [0; 256];
                let kek =
                    private.decrypt(algorithm.oaep(), &wrapped[..256], &mut kek, None).unwrap();
                let mut plain = vec![0; wrapped.len()];
                let kek = AesKek::new(&AES_256, kek).unwrap();
                assert_eq!(kek.unwrap_with_padding(&wrapped[256..], &mut plain).unwrap(), secret);
            }
        }
        let wrapped = key.wrap(WrapAlgorithm::Sha1, &[7], &System).unwrap();
        let mut plain = [0; 256];
        let other = private.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped[..256], &mut plain, None);
        assert!(other.is_err());
    }

    #[test]
    fn attack_wrapping_key_that_is_none() {
        let fails = |change: fn(&mut Value)| {
            WrappingKey::of_claims(&claims(KeySize::Rsa2048, change).0).err().unwrap()
        };
        assert!(
            WrappingKey::of_claims(&claims(KeySize::Rsa2048, |jwk| jwk["key_ops"] = json!(null)).0)
                .is_err()
        );
        assert!(matches!(fails(|jwk| jwk["key_ops"] = json!(["sign"])), KeyWrapError::NoKey));
        assert!(matches!(fails(|jwk| jwk["kty"] = json!("EC")), KeyWrapError::NoKey));
        assert!(matches!(fails(|jwk| jwk["n"] = json!("????")), KeyWrapError::BadKey));
        assert!(matches!(fails(|jwk| jwk["n"] = json!("")), KeyWrapError::BadKey));
        let short = encode_base64url([vec![0x80], vec![1; 127]].concat());
        let (mut claims, _) = claims(KeySize::Rsa2048, |_| {});
        claims["x-ms-runtime"]["keys"][1]["n"] = json!(short);
        assert!(matches!(
            WrappingKey::of_claims(&claims),
            Err(KeyWrapError::Short { found: 1024 } | KeyWrapError::BadKey)
        ));
        assert!(matches!(WrappingKey::of_claims(&Map::new()), Err(KeyWrapError::NoKey)));
    }
}
