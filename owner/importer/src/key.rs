//! The key itself: made or read, written as a JSON Web Key for the vault and as a file for its owner, and a further key derived from it.

use ah_keyservice::{
    Environment, Family, KeyType, Material, MaterialError, Shape, encode_base64url,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use der::pem::{self, LineEnding};
use pkcs8::PrivateKeyInfo;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::config::ImportConfig;

/// Length of a derived key, bytes.
const DERIVED_BYTES: usize = 32;
/// Sizes that vaults take for symmetric keys, bytes.
const OCT_BYTES: [usize; 3] = [16, 24, 32];
/// Label of PKCS#8 in PEM (RFC 7468 section 10).
const LABEL: &str = "PRIVATE KEY";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ImportKeyError {
    /// Material of the key.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// A size that no vault takes.
    #[error(
        "symmetric key has {found} bytes, expected 16, 24 or 32\nhint: the file holds the bytes themselves; `xxd -r -p` makes them of hex digits"
    )]
    Size {
        /// What was found, bytes.
        found: usize,
    },
    /// Another file than one with a private key.
    #[error(
        "file is {found}, expected a private key in PKCS#8 (\"BEGIN PRIVATE KEY\")\nhint: openssl pkcs8 -topk8 -nocrypt -in FILE converts older forms"
    )]
    NotPkcs8 {
        /// What it seems to be.
        found: String,
    },
    /// Nothing to derive from.
    #[error("a key is derived from an RSA key only, and this one is {found}")]
    NotRsa {
        /// The key's type.
        found: &'static str,
    },
    /// The cryptography library refused.
    #[error("key derivation failed")]
    Derivation,
}

/// A key that is to be imported.
pub struct ImportKey {
    /// Its type.
    pub kty: KeyType,
    /// Its secret and what is public of it.
    pub material: Material,
}

impl ImportKey {
    /// A fresh key of the usual size: 256 bits, RSA 2048, P-256.
    ///
    /// # Errors
    /// [`ImportKeyError`] when there is no randomness.
    pub fn generate(kty: KeyType, environment: &dyn Environment) -> Result<Self, ImportKeyError> {
        let material = Material::generate(kty.family, &Shape::default(), environment)?;
        Ok(Self { kty, material })
    }

    /// A key from a file: bytes of a symmetric one, else PKCS#8 as PEM or DER.
    ///
    /// # Errors
    /// [`ImportKeyError`], which holds nothing of the file but the label of its PEM.
    pub fn from_file(kty: KeyType, bytes: &[u8]) -> Result<Self, ImportKeyError> {
        let material = match kty.family {
            Family::Oct | Family::Opaque => Material::of_bytes(bytes.to_vec())?,
            family => Material::from_pkcs8(family, &pkcs8(bytes)?)?,
        };
        Ok(Self { kty, material })
    }

    /// Whether a vault would take it: those of the cloud take AES keys only.
    ///
    /// # Errors
    /// [`ImportKeyError::Size`].
    pub fn check_size(&self) -> Result<(), ImportKeyError> {
        let found = self.material.secret.as_bytes().len();
        match self.kty.family != Family::Oct || OCT_BYTES.contains(&found) {
            true => Ok(()),
            false => Err(ImportKeyError::Size { found }),
        }
    }

    /// What the owner keeps: the bytes, or PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`ImportKeyError::NotPkcs8`] never happens for keys that were made here.
    pub fn to_file(&self) -> Result<Zeroizing<Vec<u8>>, ImportKeyError> {
        let bytes = self.material.secret.as_bytes();
        if matches!(self.kty.family, Family::Oct | Family::Opaque) {
            return Ok(Zeroizing::new(bytes.to_vec()));
        }
        let text = pem::encode_string(LABEL, LineEnding::LF, bytes)
            .map_err(|error| ImportKeyError::NotPkcs8 { found: error.to_string() })?;
        Ok(Zeroizing::new(text.into_bytes()))
    }

    /// HKDF-SHA256 (RFC 5869) of the private exponent, as the known importer and its file systems derive keys.
    ///
    /// # Errors
    /// [`ImportKeyError::NotRsa`].
    pub fn derive(
        &self,
        salt: &[u8],
        label: &str,
    ) -> Result<Zeroizing<[u8; DERIVED_BYTES]>, ImportKeyError> {
        let not_rsa = || ImportKeyError::NotRsa { found: self.kty.name() };
        let Family::Rsa = self.kty.family else { return Err(not_rsa()) };
        let info = PrivateKeyInfo::try_from(self.material.secret.as_bytes());
        let info = info.map_err(|_| not_rsa())?;
        let key = pkcs1::RsaPrivateKey::try_from(info.private_key).map_err(|_| not_rsa())?;
        let failed = |_| ImportKeyError::Derivation;
        let extracted = Salt::new(HKDF_SHA256, salt).extract(key.private_exponent.as_bytes());
        let mut derived = Zeroizing::new([0; DERIVED_BYTES]);
        let label = [label.as_bytes()];
        let expanded = extracted.expand(&label, HKDF_SHA256).map_err(failed)?;
        expanded.fill(derived.as_mut_slice()).map_err(failed)?;
        Ok(derived)
    }

    /// The JSON Web Key with its private members, as the known importer sends it: RSA and EC without `-HSM` in their type.
    ///
    /// # Errors
    /// [`ImportKeyError::NotPkcs8`] never happens for keys that were made here.
    pub fn jwk(&self) -> Result<Map<String, Value>, ImportKeyError> {
        let secret = self.material.secret.as_bytes();
        let mut jwk = self.material.public.clone();
        let kty = match self.kty.family {
            Family::Oct | Family::Opaque => {
                jwk.insert("k".into(), encode_base64url(secret).into());
                jwk.insert("key_size".into(), secret.len().saturating_mul(8).into());
                self.kty.name()
            }
            Family::Rsa => {
                rsa_members(secret, &mut jwk).ok_or_else(own_form)?;
                "RSA"
            }
            Family::Ec => {
                let info = PrivateKeyInfo::try_from(secret).map_err(|_| own_form())?;
                let key = sec1::EcPrivateKey::try_from(info.private_key).map_err(|_| own_form())?;
                jwk.insert("d".into(), encode_base64url(key.private_key).into());
                "EC"
            }
        };
        jwk.insert("kty".into(), kty.into());
        Ok(jwk)
    }
}

fn own_form() -> ImportKeyError {
    ImportKeyError::NotPkcs8 { found: "not in the form that this program keeps keys in".into() }
}

fn rsa_members(pkcs8: &[u8], jwk: &mut Map<String, Value>) -> Option<()> {
    let info = PrivateKeyInfo::try_from(pkcs8).ok()?;
    let key = pkcs1::RsaPrivateKey::try_from(info.private_key).ok()?;
    let numbers = [
        ("d", key.private_exponent),
        ("p", key.prime1),
        ("q", key.prime2),
        ("dp", key.exponent1),
        ("dq", key.exponent2),
        ("qi", key.coefficient),
    ];
    for (name, number) in numbers {
        jwk.insert(name.into(), encode_base64url(number.as_bytes()).into());
    }
    Some(())
}

/// The DER of PKCS#8 in PEM or as it is.
fn pkcs8(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, ImportKeyError> {
    // A SEQUENCE (X.690 section 8.9) with a long length: PKCS#8 itself.
    if bytes.starts_with(&[0x30]) {
        return Ok(Zeroizing::new(bytes.to_vec()));
    }
    match pem::decode_vec(bytes) {
        Ok((LABEL, der)) => Ok(Zeroizing::new(der)),
        Ok((label, der)) => {
            drop(Zeroizing::new(der));
            Err(ImportKeyError::NotPkcs8 { found: format!("PEM of {label:?}") })
        }
        Err(_) => Err(ImportKeyError::NotPkcs8 { found: "neither PEM nor DER".into() }),
    }
}

/// The vault's import request (Azure Key Vault REST API 7.4, `PUT /keys/{name}`).
///
/// # Errors
/// As [`ImportKey::jwk`].
pub fn import_body(config: &ImportConfig, key: &ImportKey) -> Result<Value, ImportKeyError> {
    let mut jwk = key.jwk()?;
    if !config.ops.is_empty() {
        jwk.insert("key_ops".into(), config.ops.clone().into());
    }
    Ok(json!({
        "key": jwk,
        "hsm": config.kty.hsm,
        "attributes": { "exportable": true },
        "release_policy": {
            "contentType": "application/json; charset=utf-8",
            "data": encode_base64url(config.policy.to_json()),
        },
    }))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ah_keyservice::SystemEnvironment;

    use super::*;

    fn generated(kty: &str) -> ImportKey {
        ImportKey::generate(kty.parse().unwrap(), &SystemEnvironment).unwrap()
    }

    /// A vault reads the web key, and what it then has are the same bytes.
    #[test]
    fn web_keys_and_files_are_read_back() {
        for kty in ["oct", "oct-HSM", "RSA", "RSA-HSM", "EC", "EC-HSM"] {
            let key = generated(kty);
            let jwk = key.jwk().unwrap();
            assert_eq!(
                jwk["kty"],
                if kty == "oct-HSM" { kty } else { kty.trim_end_matches("-HSM") }
            );
            let read = Material::from_jwk(key.kty.family, &jwk).unwrap();
            assert_eq!(read.secret.as_bytes(), key.material.secret.as_bytes(), "{kty}");
            let file = key.to_file().unwrap();
            let again = ImportKey::from_file(key.kty, &file).unwrap();
            assert_eq!(again.material.secret.as_bytes(), key.material.secret.as_bytes(), "{kty}");
            assert_eq!(again.material.public, key.material.public, "{kty}");
        }
    }

    #[test]
    fn files_of_openssl_are_read() {
        let pem = |args: &[&str]| {
            let done = Command::new("openssl").args(args).output().unwrap();
            assert!(done.status.success(), "{args:?}");
            done.stdout
        };
        for (kty, args) in [
            ("RSA", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            ("EC", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            ("EC", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ] {
            let key = ImportKey::from_file(kty.parse().unwrap(), &pem(&args)).unwrap();
            let jwk = key.jwk().unwrap();
            assert!(jwk.contains_key("d"), "{kty}");
        }
        let older = pem(&["ecparam", "-genkey", "-noout", "-name", "prime256v1"]);
        let error = ImportKey::from_file("EC".parse().unwrap(), &older).err().unwrap().to_string();
        assert!(
            error.contains("PEM of \"EC PRIVATE KEY\"") && error.contains("hint: openssl pkcs8")
        );
        let error = ImportKey::from_file("RSA".parse().unwrap(), b"hello").err().unwrap();
        assert!(error.to_string().contains("neither PEM nor DER"));
        let ec = generated("EC").to_file().unwrap();
        assert!(ImportKey::from_file("RSA".parse().unwrap(), &ec).is_err(), "another kind of key");
    }

    /// OpenSSL derives the same key from the same number.
    #[test]
    fn derived_keys_are_those_of_rfc_5869() {
        let key = generated("RSA-HSM");
        let derived = key.derive(&[1; 32], "Model Encryption Key").unwrap();
        let d = ah_keyservice::decode_base64(key.jwk().unwrap()["d"].as_str().unwrap()).unwrap();
        let options = [
            "digest:SHA256".to_owned(),
            format!("hexkey:{}", hex::encode(d)),
            format!("hexsalt:{}", hex::encode([1; 32])),
            "info:Model Encryption Key".to_owned(),
        ];
        let mut command = Command::new("openssl");
        command.args(["kdf", "-keylen", "32", "-binary"]);
        for option in &options {
            command.args(["-kdfopt", option]);
        }
        let done = command.arg("HKDF").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.stdout, derived.as_slice());
        assert_ne!(key.derive(&[1; 32], "other").unwrap(), derived);
        let error = generated("oct-HSM").derive(&[1; 32], "x").unwrap_err();
        assert!(matches!(error, ImportKeyError::NotRsa { found: "oct-HSM" }));
    }

    #[test]
    fn symmetric_keys_have_the_sizes_of_aes() {
        for (bytes, good) in [(16, true), (24, true), (32, true), (31, false), (64, false)] {
            let key = ImportKey::from_file("oct-HSM".parse().unwrap(), &vec![7; bytes]).unwrap();
            assert_eq!(key.check_size().is_ok(), good, "{bytes}");
        }
        generated("RSA").check_size().unwrap();
    }
}
