//! Released key material as the JWK text that applications get: `oct` from raw bytes, RSA and EC from PKCS#8.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
};
use pkcs8::{ObjectIdentifier, PrivateKeyInfo};
use serde_json::{Map, Value};

use crate::base64;

/// Curves by object identifier (RFC 5480) and JOSE name, with the bytes of a coordinate.
const CURVES: [(&str, &str, usize, &EcdsaSigningAlgorithm); 3] = [
    ("1.2.840.10045.3.1.7", "P-256", 32, &ECDSA_P256_SHA256_FIXED_SIGNING),
    ("1.3.132.0.34", "P-384", 48, &ECDSA_P384_SHA384_FIXED_SIGNING),
    ("1.3.132.0.35", "P-521", 66, &ECDSA_P521_SHA512_FIXED_SIGNING),
];

/// The JWK of `material`. Names with -HSM say where the key was, not what it is, and are left behind.
pub(crate) fn text(kty: &str, key_ops: &[String], material: &[u8]) -> Result<String, String> {
    let mut jwk = match kty {
        "oct" | "oct-HSM" => oct(material),
        "RSA" | "RSA-HSM" => rsa(material).ok_or("released RSA key is not PKCS#8")?,
        "EC" | "EC-HSM" => ec(material).ok_or("released EC key is not PKCS#8 of a known curve")?,
        other => {
            let found = crate::error::printable(other, 20);
            return Err(format!("released key has kty {found:?}, expected oct, RSA or EC"));
        }
    };
    if !key_ops.is_empty() {
        jwk.insert("key_ops".to_owned(), key_ops.into());
    }
    Ok(Value::Object(jwk).to_string())
}

fn members<const N: usize>(members: [(&str, String); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn oct(material: &[u8]) -> Map<String, Value> {
    members([("k", base64::to_url(material)), ("kty", "oct".to_owned())])
}

fn rsa(material: &[u8]) -> Option<Map<String, Value>> {
    let info = PrivateKeyInfo::try_from(material).ok()?;
    let key = pkcs1::RsaPrivateKey::try_from(info.private_key).ok()?;
    let number = |number: pkcs1::UintRef<'_>| base64::to_url(number.as_bytes());
    Some(members([
        ("kty", "RSA".to_owned()),
        ("n", number(key.modulus)),
        ("e", number(key.public_exponent)),
        ("d", number(key.private_exponent)),
        ("p", number(key.prime1)),
        ("q", number(key.prime2)),
        ("dp", number(key.exponent1)),
        ("dq", number(key.exponent2)),
        ("qi", number(key.coefficient)),
    ]))
}

fn ec(material: &[u8]) -> Option<Map<String, Value>> {
    let info = PrivateKeyInfo::try_from(material).ok()?;
    let curve: ObjectIdentifier = info.algorithm.parameters_oid().ok()?;
    let (_, name, size, algorithm) =
        CURVES.into_iter().find(|(oid, ..)| ObjectIdentifier::new_unwrap(oid) == curve)?;
    let private = sec1::EcPrivateKey::try_from(info.private_key).ok()?;
    // The public half is often left out of the encoding, so it is computed.
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, material).ok()?;
    let point = pair.public_key().as_ref().get(1..)?;
    let (x, y) = point.split_at_checked(size)?;
    Some(members([
        ("kty", "EC".to_owned()),
        ("crv", name.to_owned()),
        ("x", base64::to_url(x)),
        ("y", base64::to_url(y)),
        ("d", base64::to_url(private.private_key)),
    ]))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};

    use super::*;

    fn jwk(kty: &str, material: &[u8]) -> Value {
        serde_json::from_str(&text(kty, &[], material).unwrap()).unwrap()
    }

    #[test]
    fn symmetric_keys_are_their_bytes() {
        assert_eq!(text("oct-HSM", &[], b"\xff\xfe").unwrap(), r#"{"k":"__4","kty":"oct"}"#);
        let ops = ["encrypt".to_owned()];
        assert_eq!(
            text("oct", &ops, b"\x00").unwrap(),
            r#"{"k":"AA","key_ops":["encrypt"],"kty":"oct"}"#
        );
    }

    #[test]
    fn rsa_keys_have_all_their_numbers() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let jwk = jwk("RSA-HSM", pkcs8.as_ref());
        assert_eq!(jwk["kty"], "RSA");
        let n = base64::url(jwk["n"].as_str().unwrap()).unwrap();
        let public = pkcs1::RsaPublicKey::try_from(pair.public_key().as_ref()).unwrap();
        assert_eq!(n, public.modulus.as_bytes());
        for member in ["e", "d", "p", "q", "dp", "dq", "qi"] {
            assert!(jwk[member].is_string(), "{member}");
        }
        assert!(jwk.get("kid").is_none());
    }

    #[test]
    fn ec_keys_have_point_and_number() {
        for (_, name, size, algorithm) in CURVES {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let pkcs8 = pair.to_pkcs8v1().unwrap();
            let jwk = jwk("EC", pkcs8.as_ref());
            assert_eq!(jwk["crv"], name);
            for member in ["x", "y", "d"] {
                let bytes = base64::url(jwk[member].as_str().unwrap()).unwrap();
                assert_eq!(bytes.len(), size, "{name} {member}");
            }
            let x = base64::url(jwk["x"].as_str().unwrap()).unwrap();
            assert_eq!(&pair.public_key().as_ref()[1..=size], x);
        }
    }

    #[test]
    fn other_material_is_refused() {
        for kty in ["RSA", "EC", "RSA-HSM", "EC-HSM"] {
            assert!(text(kty, &[], b"").is_err());
            assert!(text(kty, &[], b"\x30\x03\x02\x01\x00").is_err());
        }
        assert!(text("OKP", &[], b"x").unwrap_err().contains("kty \"OKP\""));
    }
}
