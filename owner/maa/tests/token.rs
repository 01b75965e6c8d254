//! Tokens: what makes one believed, and each thing that does not.

mod support;

use std::sync::Arc;
use std::time::Duration;

use ah_maa::{
    Algorithm, Jwk, Jwks, MemoryKeys, RingError, SigningKeys as _, TokenError, verify_token,
};
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use support::*;

const LEEWAY: Duration = Duration::from_secs(60);

struct Scene {
    clock: TestClock,
    token: String,
    jwks: Jwks,
}

impl Scene {
    fn new(algorithm: Algorithm) -> Self {
        let clock = TestClock::new();
        let service = software_service(&clock, algorithm);
        let token = service.attest_snp(honest_body().to_string().as_bytes()).unwrap();
        Self { clock, token, jwks: service.jwks() }
    }

    fn verify(&self, token: &str) -> Result<(), TokenError> {
        verify_token(token, &self.jwks, self.clock.now(), ISSUER, LEEWAY).map(|_| ())
    }

    /// The token with another header, claims and signature left as they are.
    fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = part(&self.token, 0);
        change(&mut header);
        let (_, rest) = self.token.split_once('.').unwrap();
        format!("{}.{rest}", unpadded(header.to_string().as_bytes()))
    }
}

#[test]
fn both_algorithms_verify() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        let scene = Scene::new(algorithm);
        let token =
            verify_token(&scene.token, &scene.jwks, scene.clock.now(), ISSUER, LEEWAY).unwrap();
        assert_eq!(token.issuer(), ISSUER);
        assert_eq!(token.expires_s(), START_S + 28_800);
        assert_eq!(token.claims()["x-ms-attestation-type"], "sevsnpvm");
        assert_eq!(scene.verify(&scene.token), Ok(()));
    }
}

#[test]
fn keys_are_read_from_certificates_or_numbers_alone() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        let mut scene = Scene::new(algorithm);
        let all = scene.jwks.clone();
        for key in &mut scene.jwks.keys {
            (key.n, key.e, key.crv, key.x, key.y) = (None, None, None, None, None);
            (key.alg, key.usage) = (None, None);
        }
        assert_eq!(scene.verify(&scene.token), Ok(()), "as MAA publishes them");
        scene.jwks = all;
        for key in &mut scene.jwks.keys {
            key.x5c.clear();
        }
        assert_eq!(scene.verify(&scene.token), Ok(()), "as others publish them");
    }
}

#[test]
fn attack_algorithm_none() {
    let scene = Scene::new(Algorithm::Rs256);
    let none = scene.with_header(|header| header["alg"] = json!("none"));
    let expect = |found: &str| TokenError::Algorithm { found: found.into(), expected: "RS256" };
    assert_eq!(scene.verify(&none), Err(expect("another")));
    let (unsigned, _) = none.rsplit_once('.').unwrap();
    assert_eq!(scene.verify(&format!("{unsigned}.")), Err(expect("another")));
}

/// The classic: the public key, which everybody has, used as an HMAC secret.
#[test]
fn attack_algorithm_confusion() {
    let scene = Scene::new(Algorithm::Rs256);
    let forged = scene.with_header(|header| header["alg"] = json!("HS256"));
    let (message, _) = forged.rsplit_once('.').unwrap();
    let secret = scene.jwks.keys[0].n.clone().unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let forged = format!("{message}.{}", unpadded(hmac::sign(&key, message.as_bytes()).as_ref()));
    let expect = TokenError::Algorithm { found: "HS256".into(), expected: "RS256" };
    assert_eq!(scene.verify(&forged), Err(expect));
    for other in ["ES256", "RS384", "PS256"] {
        let forged = scene.with_header(|header| header["alg"] = json!(other));
        let expect = TokenError::Algorithm { found: other.into(), expected: "RS256" };
        assert_eq!(scene.verify(&forged), Err(expect));
    }
}

#[test]
fn attack_key_id_of_another_key() {
    let scene = Scene::new(Algorithm::Rs256);
    let next = scene.jwks.keys[1].kid.clone();
    let other = scene.with_header(|header| header["kid"] = json!(next));
    assert_eq!(scene.verify(&other), Err(TokenError::Signature));
    let unknown = scene.with_header(|header| header["kid"] = json!("k"));
    assert_eq!(scene.verify(&unknown), Err(TokenError::UnknownKey { kid: "k".into() }));
    let none = scene.with_header(|header| {
        header.as_object_mut().unwrap().remove("kid");
    });
    assert_eq!(scene.verify(&none), Err(TokenError::NoKeyId));
}

/// The attacker's own key, brought along in the header, counts for nothing.
#[test]
fn attack_key_in_the_header() {
    let scene = Scene::new(Algorithm::Es256);
    let attacker = memory_ring(Algorithm::Es256).jwks(scene.clock.now()).keys[0].clone();
    let kid = attacker.kid.clone().unwrap();
    let forged = scene.with_header(|header| {
        header["jwk"] = json!(attacker);
        header["kid"] = json!(kid);
        header["jku"] = json!("https://attacker.example/certs");
    });
    assert_eq!(scene.verify(&forged), Err(TokenError::UnknownKey { kid }));
}

#[test]
fn attack_changed_claim() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        let scene = Scene::new(algorithm);
        let mut claims = part(&scene.token, 1);
        claims["x-anchorhold-tee"] = json!("sevsnpvm");
        let parts: Vec<_> = scene.token.split('.').collect();
        let forged =
            format!("{}.{}.{}", parts[0], unpadded(claims.to_string().as_bytes()), parts[2]);
        assert_eq!(scene.verify(&forged), Err(TokenError::Signature));
    }
}

#[test]
fn attack_expired_token() {
    let scene = Scene::new(Algorithm::Rs256);
    scene.clock.set(START_S + 28_800 + 59);
    assert_eq!(scene.verify(&scene.token), Ok(()), "within the leeway");
    scene.clock.set(START_S + 28_800 + 60);
    assert_eq!(scene.verify(&scene.token), Err(TokenError::Expired { by_s: 60 }));
}

#[test]
fn attack_token_from_the_future() {
    let scene = Scene::new(Algorithm::Rs256);
    scene.clock.set(START_S - 60);
    assert_eq!(scene.verify(&scene.token), Ok(()), "within the leeway");
    scene.clock.set(START_S - 61);
    assert_eq!(scene.verify(&scene.token), Err(TokenError::NotYet { by_s: 61 }));
}

#[test]
fn attack_token_of_another_issuer() {
    let scene = Scene::new(Algorithm::Rs256);
    let verify = |issuer: &str| {
        verify_token(&scene.token, &scene.jwks, scene.clock.now(), issuer, LEEWAY).map(|_| ())
    };
    assert_eq!(verify("https://maa.example:8443/"), Ok(()));
    for issuer in ["https://maa.example:844", "https://maa.example:8443.evil", ""] {
        assert!(matches!(verify(issuer), Err(TokenError::Issuer { .. })), "{issuer}");
    }
}

#[test]
fn attack_header_extension_that_is_not_understood() {
    let scene = Scene::new(Algorithm::Rs256);
    for member in ["crit", "b64", "enc", "zip"] {
        let odd = scene.with_header(|header| header[member] = json!(["x"]));
        assert_eq!(scene.verify(&odd), Err(TokenError::Header(member)));
    }
}

/// A published key whose certificate holds another key than its numbers is no key.
#[test]
fn attack_key_set_that_contradicts_itself() {
    let mut scene = Scene::new(Algorithm::Rs256);
    let kid = scene.jwks.keys[0].kid.clone().unwrap();
    let unusable = Err(TokenError::UnusableKey { kid });
    let honest = scene.jwks.clone();
    let changes: [fn(&mut Jwk, &Jwk); 5] = [
        |key, other| key.n = other.n.clone(),
        |key, other| key.x5c = other.x5c.clone(),
        |key, _| key.kty = "EC".into(),
        |key, _| key.usage = Some("enc".into()),
        |key, _| key.alg = Some("PS256".into()),
    ];
    for change in changes {
        scene.jwks = honest.clone();
        change(&mut scene.jwks.keys[0], &honest.keys[1]);
        assert_eq!(scene.verify(&scene.token), unusable);
    }
}

#[test]
fn anything_else_is_no_token() {
    let scene = Scene::new(Algorithm::Rs256);
    assert!(matches!(scene.verify(""), Err(TokenError::Form(_))));
    assert!(matches!(scene.verify("a.b.c"), Err(TokenError::Form(_))));
    let two = scene.token.rsplit_once('.').unwrap().0;
    assert!(scene.verify(two).is_err());
    assert!(scene.verify(&format!("{}.x", scene.token)).is_err());
    assert!(scene.verify(&format!("{}=", scene.token)).is_err());
    let long = "x".repeat(256 * 1024 + 1);
    assert_eq!(scene.verify(&long), Err(TokenError::TooLong { found: long.len() }));
}

#[test]
fn attack_token_of_a_rotated_out_key_after_its_grace() {
    let clock = TestClock::new();
    let service = software_service(&clock, Algorithm::Es256);
    let token = service.attest_snp(honest_body().to_string().as_bytes()).unwrap();
    let announced = service.jwks();
    service.keys().rotate(clock.now()).unwrap();
    let verify = |token: &str| {
        verify_token(token, &service.jwks(), clock.now(), ISSUER, 24 * HOUR).map(|_| ())
    };
    assert_eq!(verify(&token), Ok(()), "in its grace");

    let newer = service.attest_snp(honest_body().to_string().as_bytes()).unwrap();
    assert_ne!(part(&newer, 0)["kid"], part(&token, 0)["kid"]);
    let early = verify_token(&newer, &announced, clock.now(), ISSUER, LEEWAY);
    assert!(early.is_ok(), "the next key is published before it signs");

    clock.pass(9 * HOUR - Duration::from_secs(1));
    assert_eq!(verify(&token), Ok(()));
    clock.pass(Duration::from_secs(1));
    assert!(matches!(verify(&token), Err(TokenError::UnknownKey { .. })));
    assert_eq!(verify(&newer), Ok(()));
}

#[test]
fn rotating_without_end_is_stopped() {
    let clock = TestClock::new();
    let ring = memory_ring(Algorithm::Es256);
    for _ in 0..16 {
        ring.rotate(clock.now()).unwrap();
    }
    assert!(matches!(ring.rotate(clock.now()), Err(RingError::TooManyRetired)));
    clock.pass(9 * HOUR);
    ring.rotate(clock.now()).unwrap();
    assert_eq!(ring.jwks(clock.now()).keys.len(), 3, "what is past its grace is gone");
}

#[test]
fn key_ids_follow_maas_rule() {
    let key = &memory_ring(Algorithm::Es256).jwks(TestClock::new().now()).keys[0];
    let point =
        [base64url(key.x.as_deref().unwrap()), base64url(key.y.as_deref().unwrap())].concat();
    // SubjectPublicKeyInfo of a P-256 key (RFC 5480): a fixed head, then the point.
    let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d03010703420004").unwrap();
    let text = standard(&[head, point].concat());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n\0", lines.join("\n"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pem.as_bytes());
    assert_eq!(key.kid.as_deref(), Some(standard(digest.as_ref()).as_str()));
}

fn base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn standard(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn keys_that_are_kept_outlive_the_process() {
    let store = Arc::new(MemoryKeys::default());
    let now = TestClock::new().now();
    let ring = kept_ring(&store).unwrap();
    ring.rotate(now).unwrap();
    let published = ring.jwks(now);
    assert_eq!(published.keys.len(), 3);
    assert_eq!(kept_ring(&store).unwrap().jwks(now), published);
}

/// Two stored keys whose certificates are swapped would publish keys that nothing verifies with.
#[test]
fn attack_kept_keys_with_swapped_certificates() {
    let store = Arc::new(MemoryKeys::default());
    kept_ring(&store).unwrap();
    let mut document: Value = serde_json::from_slice(&store.read().unwrap().unwrap()).unwrap();
    let current = document["current"]["certificate"].clone();
    document["current"]["certificate"] = document["next"]["certificate"].clone();
    document["next"]["certificate"] = current;
    store.write(document.to_string().as_bytes()).unwrap();
    assert!(matches!(kept_ring(&store), Err(RingError::Key(_))));
    store.write(b"{}").unwrap();
    assert!(matches!(kept_ring(&store), Err(RingError::Document)));
}
