//! The wrapping key of one release: made fresh, bound by the report, and the only thing that opens the vault's answer.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OaepAlgorithm, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::KeyPair as _;
use zeroize::Zeroizing;

use crate::base64;

/// Longest material that is unwrapped, bytes: RSA-4096 in PKCS#8 takes 2.4 KB.
const MAX_MATERIAL_BYTES: usize = 64 * 1024;

/// An RSA-2048 key pair, as vaults expect it.
pub(crate) struct WrappingKey {
    private: PrivateDecryptingKey,
    runtime_data: Vec<u8>,
}

/// How the key-encryption key is wrapped: the hash of OAEP and of its mask generation (Azure Key Vault REST, `KeyEncryptionAlgorithm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrapAlgorithm {
    Sha1,
    Sha256,
    Sha384,
}

impl WrapAlgorithm {
    /// By its name in the vault's answer; a missing one is the oldest.
    pub(crate) fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "CKM_RSA_AES_KEY_WRAP") => Some(Self::Sha1),
            Some("RSA_AES_KEY_WRAP_256") => Some(Self::Sha256),
            Some("RSA_AES_KEY_WRAP_384") => Some(Self::Sha384),
            Some(_) => None,
        }
    }

    fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            Self::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Self::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Self::Sha384 => &OAEP_SHA384_MGF1SHA384,
        }
    }
}

impl WrappingKey {
    /// A fresh pair; takes some tens of milliseconds.
    pub(crate) fn generate() -> Option<Self> {
        Self::of(&KeyPair::generate(KeySize::Rsa2048).ok()?)
    }

    fn of(pair: &KeyPair) -> Option<Self> {
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(pair).ok()?;
        let public = pkcs1::RsaPublicKey::try_from(pair.public_key().as_ref()).ok()?;
        let n = base64::to_url(public.modulus.as_bytes());
        let e = base64::to_url(public.public_exponent.as_bytes());
        Some(Self {
            private: PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).ok()?,
            runtime_data: runtime_data(&n, &e),
        })
    }

    /// The bytes that the report binds: a JWK set of the public key, its members in alphabetical order, without spaces.
    pub(crate) fn runtime_data(&self) -> &[u8] {
        &self.runtime_data
    }

    /// Opens `ciphertext`: RSA-OAEP of an AES-256 key, then key material under that key by AES-KWP (RFC 5649).
    pub(crate) fn unwrap(
        &self,
        ciphertext: &[u8],
        algorithm: WrapAlgorithm,
    ) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let (wrapped_key, wrapped) = ciphertext
            .split_at_checked(self.private.key_size_bytes())
            .ok_or("wrapped key is shorter than an RSA block")?;
        if wrapped.len() > MAX_MATERIAL_BYTES {
            return Err("wrapped key is longer than any key");
        }
        const DOES_NOT_OPEN: &str =
            "wrapped key does not open: it was made for another request, or was altered";
        let oaep = OaepPrivateDecryptingKey::new(self.private.clone())
            .map_err(|_| "wrapping key has no oaep form")?;
        let mut buffer = Zeroizing::new(vec![0; oaep.min_output_size()]);
        let key = oaep
            .decrypt(algorithm.oaep(), wrapped_key, &mut buffer, None)
            .map_err(|_| DOES_NOT_OPEN)?;
        let kek = AesKek::new(&AES_256, key).map_err(|_| "key-encryption key is not AES-256")?;
        let mut material = Zeroizing::new(vec![0; wrapped.len()]);
        let length =
            kek.unwrap_with_padding(wrapped, &mut material).map_err(|_| DOES_NOT_OPEN)?.len();
        material.truncate(length);
        Ok(material)
    }
}

/// What an RSA-OAEP block with SHA-256 holds.
pub(crate) fn open_oaep(pkcs8: &[u8], block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?).ok()?;
    let mut buffer = Zeroizing::new(vec![0; key.min_output_size()]);
    let length = key.decrypt(&OAEP_SHA256_MGF1SHA256, block, &mut buffer, None).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

/// RFC 7638: the thumbprint is over the required members alone.
fn runtime_data(n: &str, e: &str) -> Vec<u8> {
    let thumbprint = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    let kid = base64::to_url(digest(&SHA256, thumbprint.as_bytes()).as_ref());
    format!(
        r#"{{"keys":[{{"e":"{e}","key_ops":["encrypt"],"kid":"{kid}","kty":"RSA","n":"{n}"}}]}}"#
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector() -> Option<serde_json::Value> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../shared/reference/vectors/keywrap/vectors.json"
        );
        match std::fs::read(path) {
            Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
            Err(_) => {
                println!("skipped: no vectors at {path}");
                None
            }
        }
    }

    /// An answer of the known sidecar's own tests.
    #[test]
    fn known_answer_of_the_known_sidecar() {
        let Some(vector) = vector() else { return };
        let ckm = &vector["ckm_rsa_aes_key_wrap"];
        let pem = ckm["private_key_pem"].as_str().unwrap();
        let (_, pkcs1) = der::pem::decode_vec(pem.as_bytes()).unwrap();
        let key = WrappingKey::of(&KeyPair::from_der(&pkcs1).unwrap()).unwrap();
        let set = vector["jwk_set_for_that_key"].as_str().unwrap();
        assert_eq!(String::from_utf8_lossy(key.runtime_data()), set);

        let ciphertext = base64::url(ckm["ciphertext_b64url"].as_str().unwrap()).unwrap();
        let plaintext = hex::decode(ckm["plaintext_hex"].as_str().unwrap()).unwrap();
        assert_eq!(*key.unwrap(&ciphertext, WrapAlgorithm::Sha1).unwrap(), plaintext);
        for algorithm in [WrapAlgorithm::Sha256, WrapAlgorithm::Sha384] {
            assert!(key.unwrap(&ciphertext, algorithm).is_err());
        }
    }

    #[test]
    fn attack_wrapped_key_that_is_short_or_altered() {
        let key = WrappingKey::generate().unwrap();
        let algorithm = WrapAlgorithm::Sha1;
        for length in [0, 1, 255] {
            let words = key.unwrap(&vec![0; length], algorithm).unwrap_err();
            assert_eq!(words, "wrapped key is shorter than an RSA block");
        }
        for length in [256, 257, 280] {
            assert!(key.unwrap(&vec![0; length], algorithm).is_err());
        }
        assert!(key.unwrap(&vec![0; 70_000], algorithm).is_err());
    }

    #[test]
    fn wrap_algorithms_by_name() {
        assert_eq!(WrapAlgorithm::named(None), Some(WrapAlgorithm::Sha1));
        let names = ["CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"];
        let found = names.map(|name| WrapAlgorithm::named(Some(name)).unwrap());
        assert_eq!(found, [WrapAlgorithm::Sha1, WrapAlgorithm::Sha256, WrapAlgorithm::Sha384]);
        assert_eq!(WrapAlgorithm::named(Some("RSA_AES_KEY_WRAP_512")), None);
    }

    #[test]
    fn each_release_has_a_key_of_its_own() {
        let data = || WrappingKey::generate().unwrap().runtime_data().to_vec();
        assert_ne!(data(), data());
    }
}
