//! Tokens of a key of the tests' own: the sound one, and beside it every smallest thing that is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_verifier::{TokenKeys, verify_token};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Decode as _, Reader as _, SliceReader};

const NOW: u64 = 1_800_000_000;

struct Issuer {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    fn jwks(&self) -> String {
        let point = self.ec.public_key().as_ref().to_vec();
        let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
        let n = b64(&modulus(self.rsa.public_key().as_ref()));
        format!(
            r#"{{"keys":[{{"kid":"ec","kty":"EC","alg":"ES256","use":"sig","crv":"P-256","x":"{x}","y":"{y}"}},
               {{"kid":"rsa","kty":"RSA","n":"{n}","e":"AQAB"}}]}}"#
        )
    }

    fn token(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
        let signature = match header.contains("\"RS256\"") {
            false => {
                self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            true => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let bytes = signed.as_bytes();
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{signed}.{}", b64(&signature))
    }
}

/// Modulus of an RSAPublicKey (RFC 8017).
fn modulus(key: &[u8]) -> Vec<u8> {
    let mut reader = SliceReader::new(key).unwrap();
    let read = reader.sequence(|inner| {
        let modulus = UintRef::decode(inner)?.as_bytes().to_vec();
        UintRef::decode(inner)?;
        Ok(modulus)
    });
    read.unwrap()
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const EC: &str = r#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#;
const RSA: &str = r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#;

fn payload() -> String {
    let (nbf, exp) = (NOW - 10, NOW + 1000);
    format!(r#"{{"iss":"https://a.test","nbf":{nbf},"iat":{nbf},"exp":{exp},"x":1}}"#)
}

#[test]
fn sound_tokens_of_both_kinds_of_keys() {
    let issuer = Issuer::new();
    let keys = TokenKeys::from_json(issuer.jwks().as_bytes()).unwrap();
    for (header, kid) in [(EC, "ec"), (RSA, "rsa")] {
        let token = issuer.token(header, &payload());
        let verified = verify_token(&token, &keys, Some("https://a.test"), at(NOW)).unwrap();
        assert_eq!((verified.kid(), verified.claims()["x"].as_u64()), (kid, Some(1)));
    }
}

#[test]
fn attack_tokens_with_one_thing_wrong() {
    let issuer = Issuer::new();
    let keys = TokenKeys::from_json(issuer.jwks().as_bytes()).unwrap();
    let check = |header: &str, payload: &str, now: u64, expect: &str| {
        let token = issuer.token(header, payload);
        let error = verify_token(&token, &keys, Some("https://a.test"), at(now)).expect_err(expect);
        assert_eq!(error.check(), expect, "{error:?}");
    };
    let sound = payload();
    check(EC, &sound, NOW + 1061, "token.time");
    check(EC, &sound, NOW - 71, "token.time");
    check(EC, &sound.replace("\"exp\"", "\"expires\""), NOW, "token.encoding");
    check(EC, &sound.replace("a.test", "b.test"), NOW, "token.issuer");
    check(EC, "[]", NOW, "token.encoding");
    check(&EC.replace("\"ec\"", "\"other\""), &sound, NOW, "token.key");
    check(&EC.replace("\"ec\"", "\"rsa\""), &sound, NOW, "token.algorithm");
    check(&EC.replace("ES256", "none"), &sound, NOW, "token.algorithm");
    check(&EC.replace("ES256", "HS256"), &sound, NOW, "token.algorithm");
    check(&EC.replace("ES256", "ES384"), &sound, NOW, "token.algorithm");
    check(&EC.replace("\"typ\"", "\"crit\""), &sound, NOW, "token.encoding");
    let other = Issuer::new().token(EC, &sound);
    let error = verify_token(&other, &keys, None, at(NOW)).unwrap_err();
    assert_eq!(error.check(), "token.signature");
    let token = issuer.token(RSA, &sound);
    for offset in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[offset] = if bytes[offset] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify_token(&changed, &keys, None, at(NOW)).is_err(), "{offset}");
    }
}

#[test]
fn attack_key_document_with_two_keys_of_one_name() {
    let issuer = Issuer::new();
    let jwks = issuer.jwks().replace("\"kid\":\"rsa\"", "\"kid\":\"ec\"");
    let keys = TokenKeys::from_json(jwks.as_bytes()).unwrap();
    let error = verify_token(&issuer.token(EC, &payload()), &keys, None, at(NOW)).unwrap_err();
    assert_eq!(error.check(), "token.key");
    assert!(TokenKeys::from_json(b"{}").is_err());
}
