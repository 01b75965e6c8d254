use super::*;
use crate::encoding::encode_base64url;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use serde_json::json;

const ISSUER: &str = "https://issuer.example";
const NOW_S: u64 = 1_800_000_000;

struct World {
    rsa: KeyPair,
    ec: EcdsaKeyPair,
    issuers: TrustedIssuers,
}

impl World {
    fn new(audience: Option<&str>) -> Self {
        let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let n = encode_base64url(rsa.public_key().modulus().big_endian_without_leading_zero());
        let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
        let set = json!({"keys":[
            {"kid":"r","kty":"RSA","alg":"RS256","use":"sig","n":n,"e":"AQAB"},
            {"kid":"e","kty":"EC","crv":"P-256","x":encode_base64url(x),"y":encode_base64url(y)},
            {"kid":"other use","kty":"RSA","use":"enc","n":n,"e":"AQAB"},
            {"kid":"other kind","kty":"OKP"},
        ]});
        let keys = SharedKeys::new(KeySet::parse(set.to_string().as_bytes()).unwrap());
        let issuer =
            TrustedIssuer { issuer: ISSUER.into(), audience: audience.map(str::to_owned), keys };
        Self { rsa, ec, issuers: TrustedIssuers::new(vec![issuer]) }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            encode_base64url(header.to_string()),
            encode_base64url(claims.to_string())
        );
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                self.ec.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
            }
            Some("RS256") => {
                let mut signature = vec![0; 256];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            Some("HS256") => {
                // Algorithm confusion: the public key's bytes as a MAC key.
                let der: PublicKeyX509Der<'_> = self.rsa.public_key().as_der().unwrap();
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, der.as_ref());
                aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{text}.{}", encode_base64url(signature))
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenError> {
        self.issuers.verify(token, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S))
    }

    fn check(&self, header: Value, claims: Value) -> Result<VerifiedToken, TokenError> {
        self.verify(&self.token(&header, &claims))
    }
}

fn rs256() -> Value {
    json!({"alg":"RS256","kid":"r","typ":"JWT"})
}

fn claims() -> Value {
    json!({"iss":ISSUER,"exp":NOW_S + 10,"nbf":NOW_S - 10,"x":"1"})
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    value[name] = new;
    value
}

#[test]
fn both_kinds_of_signature_are_verified() {
    let world = World::new(None);
    let expect =
        VerifiedToken { issuer: ISSUER.into(), claims: claims().as_object().unwrap().clone() };
    assert_eq!(world.check(rs256(), claims()), Ok(expect.clone()));
    assert_eq!(world.check(json!({"alg":"ES256","kid":"e"}), claims()), Ok(expect));
    let slash = with(claims(), "iss", json!("https://issuer.example/"));
    assert_eq!(world.check(rs256(), slash).unwrap().issuer, "https://issuer.example/");
}

#[test]
fn attack_token_without_or_with_the_wrong_algorithm() {
    let world = World::new(None);
    assert!(world.check(rs256(), claims()).is_ok());
    let none = world.check(json!({"alg":"none","kid":"r"}), claims());
    assert_eq!(none, Err(TokenError::Malformed));
    for (alg, kid) in [("HS256", "r"), ("ES256", "r"), ("RS256", "e"), ("HS256", "e")] {
        let answer = world.check(json!({"alg":alg,"kid":kid}), claims());
        assert!(matches!(answer, Err(TokenError::Algorithm { .. })), "{alg} {kid}: {answer:?}");
    }
}

#[test]
fn attack_token_whose_header_changes_what_the_payload_is() {
    let world = World::new(None);
    for (member, value) in [("crit", json!(["exp"])), ("zip", json!("DEF")), ("b64", json!(false))]
    {
        assert!(world.check(with(rs256(), "other", value.clone()), claims()).is_ok());
        let answer = world.check(with(rs256(), member, value), claims());
        assert_eq!(answer, Err(TokenError::Header(member)));
    }
}

#[test]
fn attack_token_under_another_key() {
    let (world, thief) = (World::new(None), World::new(None));
    assert_eq!(world.verify(&thief.token(&rs256(), &claims())), Err(TokenError::Signature));
    for kid in [json!("other use"), json!("other kind"), json!("x"), json!(null)] {
        let answer = world.check(with(rs256(), "kid", kid), claims());
        assert!(matches!(answer, Err(TokenError::Key { .. })), "{answer:?}");
    }
    // A key that the token brings along counts for nothing.
    let jwk = json!({"kty":"RSA","n":encode_base64url(thief.rsa.public_key().modulus().big_endian_without_leading_zero()),"e":"AQAB"});
    let brought = thief.token(&with(rs256(), "jwk", jwk), &claims());
    assert_eq!(world.verify(&brought), Err(TokenError::Signature));
}

#[test]
fn attack_token_altered() {
    let world = World::new(None);
    let token = world.token(&rs256(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = encode_base64url(with(claims(), "x", json!("2")).to_string());
    assert_eq!(
        world.verify(&format!("{}.{forged}.{}", parts[0], parts[2])),
        Err(TokenError::Signature)
    );
    assert_eq!(world.verify(&format!("{}.{}.", parts[0], parts[1])), Err(TokenError::Signature));
    for bad in [
        "",
        ".",
        "..",
        "a.b.c",
        &token[1..],
        &format!("{token}.x"),
        &"a".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert!(world.verify(bad).is_err(), "{bad:.20}");
    }
}

#[test]
fn attack_token_of_another_time_issuer_or_audience() {
    let world = World::new(None);
    let check = |name: &str, value: Value| world.check(rs256(), with(claims(), name, value));
    assert!(check("exp", json!(NOW_S - 59)).is_ok(), "within the leeway");
    assert_eq!(check("exp", json!(NOW_S - 60)), Err(TokenError::Expired));
    assert_eq!(check("exp", json!(null)), Err(TokenError::Malformed));
    assert_eq!(check("exp", json!("9999999999")), Err(TokenError::Malformed));
    assert!(check("nbf", json!(NOW_S + 60)).is_ok());
    assert_eq!(check("nbf", json!(NOW_S + 61)), Err(TokenError::NotYet));
    for issuer in [
        json!("https://issuer.example.evil"),
        json!(""),
        json!(null),
        json!(["https://issuer.example"]),
    ] {
        assert!(matches!(check("iss", issuer), Err(TokenError::Issuer { .. })));
    }
    let mut eternal = claims();
    eternal.as_object_mut().unwrap().remove("exp");
    assert_eq!(world.check(rs256(), eternal), Err(TokenError::Expired));

    let world = World::new(Some("me"));
    let check = |audience: Value| world.check(rs256(), with(claims(), "aud", audience));
    assert!(check(json!("me")).is_ok());
    assert!(check(json!(["you", "me"])).is_ok());
    for other in [json!("you"), json!(["you"]), json!(null), json!("me2")] {
        assert_eq!(check(other), Err(TokenError::Audience));
    }
    assert_eq!(world.check(rs256(), claims()), Err(TokenError::Audience));
}

/// Attestation services publish certificates and no numbers.
#[test]
fn keys_are_read_from_certificates() {
    use x509_cert::der::Encode as _;
    let certificate = include_bytes!("../tests/fixtures/a/ark.der");
    let parsed = Certificate::from_der(certificate).unwrap();
    assert_eq!(parsed.to_der().unwrap(), certificate);
    let x5c = base64::engine::general_purpose::STANDARD.encode(certificate);
    let read = |key: Value| KeySet::parse(json!({"keys":[key]}).to_string().as_bytes());
    assert!(read(json!({"kid":"c","kty":"RSA","x5c":[x5c]})).is_ok());
    assert!(
        matches!(read(json!({"kty":"RSA","x5c":[x5c]})), Err(KeySetError::Empty)),
        "without a key id"
    );
    assert!(matches!(read(json!({"kid":"c","kty":"RSA","x5c":["AAAA"]})), Err(KeySetError::Empty)));
    assert!(matches!(KeySet::parse(b"{}"), Err(KeySetError::Json(_))));
}
