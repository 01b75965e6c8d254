//! Key sets (RFC 7517) as issuers publish them: certificates in `x5c` as MAA's, numbers as everybody else's, or both.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::UintRef;
use der::{Decode as _, Encode as _, EncodePem as _, Sequence};
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::Certificate;

use crate::base64url;
use crate::key::{Algorithm, key_id};

/// A key set. Members that are not named here are other people's and are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// A public key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `RSA` or `EC`.
    pub kty: String,
    /// `RS256` or `ES256`; missing in some sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`; missing in some sets.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Certificates, standard base64 of DER; the first one holds the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub x5c: Vec<String>,
    /// RSA modulus, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// `P-256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// EC coordinate, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// EC coordinate, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}

/// RSAPublicKey of RFC 8017, appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// The numbers of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Numbers {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256, 65 bytes.
    P256(Vec<u8>),
}

impl Jwk {
    /// The key in a certificate, under MAA's key id; `None` when it is no RSA or P-256 key.
    pub(crate) fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let spki = public_key(certificate)?;
        let numbers = Numbers::of_spki(&spki)?;
        let mut key = Self {
            kid: Some(key_id(&spki.to_pem(der::pem::LineEnding::LF).ok()?)),
            alg: Some(numbers.algorithm().name().to_owned()),
            usage: Some("sig".to_owned()),
            x5c: vec![STANDARD.encode(certificate)],
            ..Self::default()
        };
        match numbers {
            Numbers::Rsa { n, e } => {
                key.kty = "RSA".to_owned();
                (key.n, key.e) = (Some(base64url::encode(&n)), Some(base64url::encode(&e)));
            }
            Numbers::P256(point) => {
                let (x, y) = point.get(1..)?.split_at_checked(32)?;
                key.kty = "EC".to_owned();
                key.crv = Some("P-256".to_owned());
                (key.x, key.y) = (Some(base64url::encode(x)), Some(base64url::encode(y)));
            }
        }
        Some(key)
    }

    /// The one algorithm that this key may verify; the header of a token has no say in it.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = self.numbers()?.algorithm();
        let named = self.alg.as_deref().is_none_or(|alg| alg == algorithm.name());
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        (named && signs).then_some(algorithm)
    }

    /// The numbers; `None` for a key of another kind, or one whose certificate holds another key than its numbers.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        let certified = match self.x5c.first() {
            Some(text) => Some(Numbers::of_spki(&public_key(&STANDARD.decode(text).ok()?)?)?),
            None => None,
        };
        let written = match (&self.n, &self.e, &self.x, &self.y) {
            (None, None, None, None) => None,
            _ => Some(self.written()?),
        };
        match (certified, written) {
            (Some(certified), Some(written)) if certified != written => None,
            (certified, written) => certified.or(written),
        }
        .filter(|numbers| numbers.kty() == self.kty)
    }

    fn written(&self) -> Option<Numbers> {
        let member = |member: &Option<String>| base64url::decode(member.as_deref()?).ok();
        match self.kty.as_str() {
            "RSA" => Some(Numbers::Rsa { n: member(&self.n)?, e: member(&self.e)? }),
            "EC" if self.crv.as_deref() == Some("P-256") => {
                let (x, y) = (member(&self.x)?, member(&self.y)?);
                let sizes = x.len() == 32 && y.len() == 32;
                sizes.then(|| Numbers::P256([vec![4], x, y].concat()))
            }
            _ => None,
        }
    }

    /// Whether `signature` over `message` is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.numbers() {
            Some(Numbers::Rsa { n, e }) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Some(Numbers::P256(point)) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            None => false,
        }
    }
}

impl Numbers {
    fn of_spki(spki: &SubjectPublicKeyInfoOwned) -> Option<Self> {
        let bytes = spki.subject_public_key.as_bytes()?;
        match spki.algorithm.oid {
            oid if oid == RSA => {
                let key = RsaPublicKey::from_der(bytes).ok()?;
                let (n, e) = (key.modulus.as_bytes().to_vec(), key.exponent.as_bytes().to_vec());
                Some(Self::Rsa { n, e })
            }
            oid if oid == EC => {
                let curve: spki::ObjectIdentifier =
                    spki.algorithm.parameters.as_ref()?.decode_as().ok()?;
                let whole = curve == P256 && bytes.len() == 65 && bytes.first() == Some(&4);
                whole.then(|| Self::P256(bytes.to_vec()))
            }
            _ => None,
        }
    }

    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
        }
    }

    const fn kty(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "EC",
        }
    }
}

/// rsaEncryption (RFC 8017).
const RSA: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-ecPublicKey and secp256r1 (RFC 5480).
const EC: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

fn public_key(certificate: &[u8]) -> Option<SubjectPublicKeyInfoOwned> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let spki = certificate.tbs_certificate.subject_public_key_info;
    // Read from its own bytes once more, so that the text that is hashed into a key id is canonical.
    SubjectPublicKeyInfoOwned::from_der(&spki.to_der().ok()?).ok()
}
