use super::*;
use crate::environment::SystemEnvironment as System;
use serde_json::json;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn names_are_those_of_vaults() {
    for name in ["oct", "oct-HSM", "RSA", "RSA-HSM", "EC", "EC-HSM", "opaque"] {
        assert_eq!(name.parse::<KeyType>().unwrap().name(), name);
    }
    for name in ["", "rsa", "OCT", "oct-hsm", "OKP"] {
        assert!(matches!(name.parse::<KeyType>(), Err(MaterialError::Type { .. })), "{name}");
    }
}

/// RFC 7517 appendix A.2 has this EC key; the d of another key does not fit.
#[test]
fn attack_public_part_of_another_ec_key() {
    let good = json!({"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"});
    let made = Material::from_jwk(Family::Ec, &object(good.clone())).unwrap();
    assert_eq!(made.public["x"], good["x"]);
    assert_eq!(made.public.get("d"), None);
    assert!(EcdsaKeyPair::from_pkcs8(Curve::P256.algorithm(), made.secret.as_bytes()).is_ok());
    let mut bad = good.clone();
    bad["d"] = json!("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAI");
    let error = Material::from_jwk(Family::Ec, &object(bad)).err().unwrap().to_string();
    assert!(error.contains("do not make a EC key") && !error.contains("870MB6"), "{error}");
    for missing in ["crv", "x", "y", "d"] {
        let mut bad = object(good.clone());
        bad.remove(missing);
        assert!(
            matches!(Material::from_jwk(Family::Ec, &bad), Err(MaterialError::Member(name)) if name == missing)
        );
    }
}

#[test]
fn fresh_keys_have_the_shape_asked_for() {
    let make = |family, size: Option<u32>, curve: Option<&str>| {
        Material::generate(family, &Shape { size, curve: curve.map(str::to_owned) }, &System)
    };
    assert_eq!(make(Family::Oct, None, None).unwrap().secret.as_bytes().len(), 32);
    assert_eq!(make(Family::Oct, Some(128), None).unwrap().secret.as_bytes().len(), 16);
    assert!(matches!(make(Family::Oct, Some(8), None), Err(MaterialError::Size { found: 8, .. })));
    assert!(matches!(make(Family::Rsa, Some(1024), None), Err(MaterialError::Size { .. })));
    for (name, bytes) in [("P-256", 32), ("P-384", 48), ("P-521", 66)] {
        let made = make(Family::Ec, None, Some(name)).unwrap();
        assert_eq!(decode_base64(made.public["x"].as_str().unwrap()).unwrap().len(), bytes);
        assert_eq!(Material::shape(&made.public, 1).curve.as_deref(), Some(name));
    }
    assert!(matches!(make(Family::Ec, None, Some("P-256K")), Err(MaterialError::Curve { .. })));
    let rsa = make(Family::Rsa, None, None).unwrap();
    assert!(RsaKeyPair::from_pkcs8(rsa.secret.as_bytes()).is_ok());
    assert_eq!(Material::shape(&rsa.public, 1).size, Some(2048));
}
