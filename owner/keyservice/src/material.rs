//! Key material: what kinds there are, how it is made, and how it is read from a JSON Web Key (RFC 7517, RFC 7518 section 6).

use ah_release_api::{MAX_SECRET_BYTES, Secret};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::encoding::{decode_base64, encode_base64url};
use crate::environment::{Environment, RandomError};

/// Sizes of `oct` keys that can be made, bits.
const OCT_BITS: [u32; 3] = [128, 192, 256];

/// Kind of a key, as vaults name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyType {
    /// What it is.
    pub family: Family,
    /// Whether its name says `-HSM`. It says nothing about hardware here: it is what the client called it.
    pub hsm: bool,
}

/// What key material is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Bytes of a symmetric key.
    Oct,
    /// Bytes of no further meaning; ours, no vault has it.
    Opaque,
    /// RSA, kept as PKCS#8.
    Rsa,
    /// Elliptic curve, kept as PKCS#8.
    Ec,
}

impl KeyType {
    /// Symmetric, called plain.
    pub const OCT: Self = Self { family: Family::Oct, hsm: false };
    /// Bytes of no further meaning.
    pub const OPAQUE: Self = Self { family: Family::Opaque, hsm: false };

    /// The name.
    pub fn name(self) -> &'static str {
        match (self.family, self.hsm) {
            (Family::Oct, false) => "oct",
            (Family::Oct, true) => "oct-HSM",
            (Family::Rsa, false) => "RSA",
            (Family::Rsa, true) => "RSA-HSM",
            (Family::Ec, false) => "EC",
            (Family::Ec, true) => "EC-HSM",
            (Family::Opaque, _) => "opaque",
        }
    }

    /// What a key of this kind may be used for when nobody says.
    pub fn usual_ops(self) -> Vec<String> {
        let ops: &[&str] = match self.family {
            Family::Oct => &["encrypt", "decrypt", "wrapKey", "unwrapKey"],
            Family::Rsa => &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
            Family::Ec => &["sign", "verify"],
            Family::Opaque => &[],
        };
        ops.iter().map(|op| (*op).to_owned()).collect()
    }
}

impl std::str::FromStr for KeyType {
    type Err = MaterialError;

    fn from_str(text: &str) -> Result<Self, MaterialError> {
        let all = [Family::Oct, Family::Rsa, Family::Ec, Family::Opaque];
        let mut types =
            all.into_iter().flat_map(|family| [false, true].map(|hsm| Self { family, hsm }));
        types
            .find(|kind| kind.name() == text)
            .ok_or_else(|| MaterialError::Type { found: cut(text) })
    }
}

/// Curves of [`Family::Ec`], RFC 7518 section 6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn read(name: &str) -> Result<Self, MaterialError> {
        match name {
            "P-256" => Ok(Self::P256),
            "P-384" => Ok(Self::P384),
            "P-521" => Ok(Self::P521),
            other => Err(MaterialError::Curve { found: cut(other) }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

/// Why there is no key material in what a client sent.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Another kind of key.
    #[error("key type is {found:?}, expected oct, RSA or EC, or one of them with -HSM")]
    Type {
        /// What was found.
        found: String,
    },
    /// Another curve.
    #[error("curve is {found:?}, expected P-256, P-384 or P-521")]
    Curve {
        /// What was found.
        found: String,
    },
    /// Another size.
    #[error("key size is {found}, expected {expected} bits")]
    Size {
        /// What was found, bits.
        found: u32,
        /// What is possible.
        expected: &'static str,
    },
    /// A member is missing or has another form. Its value may be secret, so it is not told.
    #[error("key's member {0:?} is missing, or not a base64 text")]
    Member(&'static str),
    /// The members do not belong together.
    #[error(
        "key's members do not make a {0} key: they are malformed, too short, or belong to different keys"
    )]
    Inconsistent(&'static str),
    /// Nothing, or too much.
    #[error("key has {found} bytes, expected 1 to {MAX_SECRET_BYTES}")]
    Length {
        /// Length found, bytes.
        found: usize,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A key's secret, and what of it is public.
pub struct Material {
    /// Raw bytes, or PKCS#8.
    pub secret: Secret,
    /// The public members of its JSON Web Key: `n`, `e`, or `crv`, `x`, `y`, or none.
    pub public: Map<String, Value>,
}

/// What to make a key of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bits, for `oct` and RSA.
    pub size: Option<u32>,
    /// Curve, for EC.
    pub curve: Option<String>,
}

impl Material {
    /// Bytes that have no public part.
    ///
    /// # Errors
    /// [`MaterialError::Length`].
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, MaterialError> {
        let found = bytes.len();
        let secret = Secret::new(bytes).map_err(|_| MaterialError::Length { found })?;
        Ok(Self { secret, public: Map::new() })
    }

    /// The private key of a JSON Web Key.
    ///
    /// # Errors
    /// [`MaterialError`]; no value of the key is in its text.
    pub fn from_jwk(family: Family, jwk: &Map<String, Value>) -> Result<Self, MaterialError> {
        match family {
            Family::Oct | Family::Opaque => Self::of_bytes(std::mem::take(&mut *member(jwk, "k")?)),
            Family::Rsa => rsa_from_jwk(jwk),
            Family::Ec => ec_from_jwk(jwk),
        }
    }

    /// The private key of PKCS#8 (RFC 5208) in DER.
    ///
    /// # Errors
    /// [`MaterialError::Inconsistent`] for anything else than a whole key of that family.
    pub fn from_pkcs8(family: Family, der: &[u8]) -> Result<Self, MaterialError> {
        match family {
            Family::Oct | Family::Opaque => Self::of_bytes(der.to_vec()),
            Family::Rsa => of_rsa(
                &RsaKeyPair::from_pkcs8(der).map_err(|_| MaterialError::Inconsistent("RSA"))?,
            ),
            Family::Ec => {
                let pair = |curve: Curve| {
                    Some((curve, EcdsaKeyPair::from_pkcs8(curve.algorithm(), der).ok()?))
                };
                let mut curves = [Curve::P256, Curve::P384, Curve::P521].into_iter();
                let (curve, pair) =
                    curves.find_map(pair).ok_or(MaterialError::Inconsistent("EC"))?;
                of_ec(curve, &pair)
            }
        }
    }

    /// A fresh key.
    ///
    /// # Errors
    /// [`MaterialError`] for a size or curve that is not possible.
    pub fn generate(
        family: Family,
        shape: &Shape,
        environment: &dyn Environment,
    ) -> Result<Self, MaterialError> {
        match family {
            Family::Oct | Family::Opaque => {
                let bits = shape.size.unwrap_or(256);
                if !OCT_BITS.contains(&bits) {
                    return Err(MaterialError::Size { found: bits, expected: "128, 192 or 256" });
                }
                let mut bytes = vec![0; bits as usize / 8];
                environment.random(&mut bytes)?;
                Self::of_bytes(bytes)
            }
            Family::Rsa => {
                let size = match shape.size.unwrap_or(2048) {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    found => {
                        return Err(MaterialError::Size { found, expected: "2048, 3072 or 4096" });
                    }
                };
                of_rsa(&RsaKeyPair::generate(size).map_err(|_| MaterialError::Inconsistent("RSA"))?)
            }
            Family::Ec => {
                let curve = Curve::read(shape.curve.as_deref().unwrap_or("P-256"))?;
                let pair = EcdsaKeyPair::generate(curve.algorithm());
                of_ec(curve, &pair.map_err(|_| MaterialError::Inconsistent("EC"))?)
            }
        }
    }

    /// The shape that a further version of a key has: that of its public part, or of its length.
    pub(crate) fn shape(public: &Map<String, Value>, secret_bytes: usize) -> Shape {
        let text = |name: &str| public.get(name).and_then(Value::as_str);
        let bytes = text("n").and_then(decode_base64).map_or(secret_bytes, |modulus| modulus.len());
        let size = u32::try_from(bytes.saturating_mul(8)).ok();
        Shape { size, curve: text("crv").map(str::to_owned) }
    }
}

fn rsa_from_jwk(jwk: &Map<String, Value>) -> Result<Material, MaterialError> {
    let public = |name| member(jwk, name).map(|bytes| without_zeros(&bytes));
    let components = aws_lc_rs::rsa::KeyPairComponents {
        public_key: PublicKeyComponents { n: public("n")?, e: public("e")? },
        d: member(jwk, "d")?.to_vec(),
        p: member(jwk, "p")?.to_vec(),
        q: member(jwk, "q")?.to_vec(),
        dP: member(jwk, "dp")?.to_vec(),
        dQ: member(jwk, "dq")?.to_vec(),
        qInv: member(jwk, "qi")?.to_vec(),
    };
    let pair = RsaKeyPair::from_components(&components);
    for mut secret in
        [components.d, components.p, components.q, components.dP, components.dQ, components.qInv]
    {
        zeroize::Zeroize::zeroize(&mut secret);
    }
    of_rsa(&pair.map_err(|_| MaterialError::Inconsistent("RSA"))?)
}

fn of_rsa(pair: &RsaKeyPair) -> Result<Material, MaterialError> {
    let wrong = |_| MaterialError::Inconsistent("RSA");
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(wrong)?;
    let public = pair.public_key();
    let mut members = Map::new();
    members.insert(
        "n".into(),
        encode_base64url(public.modulus().big_endian_without_leading_zero()).into(),
    );
    members.insert(
        "e".into(),
        encode_base64url(public.exponent().big_endian_without_leading_zero()).into(),
    );
    Ok(Material { public: members, ..Material::of_bytes(der.as_ref().to_vec())? })
}

fn ec_from_jwk(jwk: &Map<String, Value>) -> Result<Material, MaterialError> {
    let curve =
        Curve::read(jwk.get("crv").and_then(Value::as_str).ok_or(MaterialError::Member("crv"))?)?;
    let coordinate = |name| member(jwk, name).and_then(|bytes| padded(&bytes, curve.bytes()));
    let point = [vec![4], coordinate("x")?.to_vec(), coordinate("y")?.to_vec()].concat();
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm(), &coordinate("d")?, &point);
    of_ec(curve, &pair.map_err(|_| MaterialError::Inconsistent("EC"))?)
}

fn of_ec(curve: Curve, pair: &EcdsaKeyPair) -> Result<Material, MaterialError> {
    let der = pair.to_pkcs8v1().map_err(|_| MaterialError::Inconsistent("EC"))?;
    // An uncompressed point, SEC 1 section 2.3.3: 4, x, y.
    let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at_checked(curve.bytes()).ok_or(MaterialError::Inconsistent("EC"))?;
    let mut members = Map::new();
    members.insert("crv".into(), curve.name().into());
    members.insert("x".into(), encode_base64url(x).into());
    members.insert("y".into(), encode_base64url(y).into());
    Ok(Material { public: members, ..Material::of_bytes(der.as_ref().to_vec())? })
}

fn member(
    jwk: &Map<String, Value>,
    name: &'static str,
) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
    let text = jwk.get(name).and_then(Value::as_str);
    text.and_then(decode_base64).map(Zeroizing::new).ok_or(MaterialError::Member(name))
}

fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// A number with zeros in front, `length` bytes.
fn padded(bytes: &[u8], length: usize) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
    let digits = Zeroizing::new(without_zeros(bytes));
    let zeros = length.checked_sub(digits.len()).ok_or(MaterialError::Inconsistent("EC"))?;
    Ok(Zeroizing::new([vec![0; zeros], digits.to_vec()].concat()))
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[path = "material_tests.rs"]
mod tests;
