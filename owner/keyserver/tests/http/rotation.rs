//! The keys that sign attestation tokens change on a schedule: at one of two replicas, for both.

use std::path::Path;
use std::sync::Arc;

use ah_digest::Sha256;
use ah_evidence::ReportData;
use ah_keyserver::{Config, TokenKeys, TokenKeysError, start_with};
use ah_keyservice::{KeyService, Options, decode_base64, encode_base64url};
use ah_testkit_postgres::Postgres;
use ah_verifier::TrustedRoots;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use reqwest::Method;
use serde_json::{Value, json};

use crate::evidence::{ARK, body, report};
use crate::support::*;

/// How both replicas are called.
const URL: &str = "https://keys.example";
const DAY_S: u64 = 24 * 3600;
/// How long tokens live, and a replica may lag, twice.
const GRACE_S: u64 = 28_800 + 120;

struct Replica {
    world: World,
    keys: Arc<TokenKeys>,
}

impl Replica {
    async fn start(database: &str, kek: &Path, clock: &Arc<TestClock>) -> (Self, Config) {
        let folder = tempfile::tempdir().unwrap();
        let attest = Issuer::new(AUTHORITY);
        let (mut config, tokens) = configure(folder.path(), &attest);
        let root = folder.path().join("root.der");
        std::fs::write(&root, ARK).unwrap();
        config.danger_software_root = Some(root);
        config.url = Some(URL.to_owned());
        config.database = Some(database.to_owned());
        config.key_encryption_key.file = Some(kek.to_owned());
        let started = start_with(&config, clock.clone()).await.unwrap();
        let keys = started.token_keys.clone();
        let mut world = World::serve(started, attest, tokens, folder);
        world.url = format!("https://localhost:{}", world.address.port());
        (Self { world, keys }, config)
    }

    /// A token for the guest with this key.
    async fn token(&self, guest: &GuestKey) -> String {
        let runtime = json!({"keys": guest.claims(HOST_DATA)["x-ms-runtime"]["keys"]});
        let runtime = runtime.to_string().into_bytes();
        let report = report(ReportData::for_runtime_data(&runtime), Sha256::of("pod"));
        let path = "/attest/SevSnpVm?api-version=2022-08-01";
        let (status, answer) =
            self.world.call("", Method::POST, path, Some(body(&report, &runtime))).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn release(&self, token: &str) -> u16 {
        let target = json!({"target": token});
        self.world.release("/keys/k/release", target).await.0.as_u16()
    }

    async fn import(&self) {
        let text = json!({"version": "1.0.0", "anyOf": [{"authority": URL, "allOf": [
            {"claim": "x-ms-sevsnpvm-hostdata", "equals": Sha256::of("pod").to_string()},
            {"claim": "x-anchorhold-tee", "equals": "software (not confidential)"}]}]});
        let body = json!({
            "key": {"kty": "oct-HSM", "k": encode_base64url([7; 32]), "key_size": 256},
            "attributes": {"exportable": true},
            "release_policy": {"data": encode_base64url(text.to_string())},
        });
        let path = "/keys/k?api-version=7.4";
        assert_eq!(self.world.call("importer", Method::PUT, path, Some(body)).await.0, 200);
    }
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&decode_base64(part).unwrap()).unwrap()
}

/// The key that signs now, as whoever stole it from the service has it.
async fn stolen(config: &Config) -> KeyPair {
    let options = Options::new(TrustedRoots::amd());
    let service = KeyService::connect(&config.location(), &config.kek(), options).await.unwrap();
    let document = service.shared_secret("token-keys", || unreachable!()).await.unwrap();
    service.close().await;
    let document: Value = serde_json::from_slice(&document).unwrap();
    let pkcs8 = decode_base64(document["current"]["pkcs8"].as_str().unwrap()).unwrap();
    KeyPair::from_pkcs8(&pkcs8).unwrap()
}

/// The token once more, for a century, signed by this key.
fn forged(token: &str, key: &KeyPair) -> String {
    let mut claims = part(token, 1);
    claims["exp"] = 4_800_000_000u64.into();
    let header = token.split('.').next().unwrap();
    let text = format!("{header}.{}", encode_base64url(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", encode_base64url(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_token_of_a_key_that_was_rotated_out() {
    let server = Postgres::start().unwrap();
    let (database, shared) = (server.database().unwrap(), tempfile::tempdir().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let clock = TestClock::at(now.as_secs());
    let kek = shared.path().join("kek");
    let (one, config) = Replica::start(&database, &kek, &clock).await;
    let (other, _) = Replica::start(&database, &kek, &clock).await;
    one.import().await;
    let guest = GuestKey::new();
    let first = one.token(&guest).await;
    assert_eq!((one.release(&first).await, other.release(&first).await), (200, 200));
    let old = stolen(&config).await;
    let forged = forged(&first, &old);

    clock.forward(90 * DAY_S - 1);
    assert!(!one.keys.check().await.unwrap(), "not yet");
    let last = one.token(&guest).await;
    assert_eq!(part(&last, 0)["kid"], part(&first, 0)["kid"]);
    clock.forward(1);
    assert!(one.keys.check().await.unwrap());
    assert!(!one.keys.check().await.unwrap(), "once");
    let next = one.token(&guest).await;
    assert_ne!(part(&next, 0)["kid"], part(&last, 0)["kid"]);
    // The other replica did not look yet: it knows the next key, and its own tokens are good as well.
    let lagging = other.token(&guest).await;
    assert_eq!(part(&lagging, 0)["kid"], part(&last, 0)["kid"]);
    assert_eq!((other.release(&next).await, one.release(&lagging).await), (200, 200));
    assert!(!other.keys.check().await.unwrap(), "another one changed them");
    assert_eq!(part(&other.token(&guest).await, 0)["kid"], part(&next, 0)["kid"]);
    // Tokens of the old key live on for their time.
    for replica in [&one, &other] {
        assert_eq!((replica.release(&last).await, replica.release(&forged).await), (200, 200));
    }
    clock.forward(GRACE_S - 1);
    assert_eq!(one.release(&last).await, 403, "expired by itself");
    assert_eq!((one.release(&forged).await, other.release(&forged).await), (200, 200));
    clock.forward(1);
    assert_ne!((one.release(&forged).await, other.release(&forged).await), (200, 200));
    for replica in [&one, &other] {
        assert_eq!(replica.release(&forged).await, 403, "the key is gone");
        let fresh = replica.token(&guest).await;
        assert_eq!(replica.release(&fresh).await, 200);
    }
    one.world.stop().await;
    other.world.stop().await;
}

/// What the decision log says about secrets of the service.
async fn changes(config: &Config) -> Vec<Value> {
    let options = Options::new(TrustedRoots::amd());
    let service = KeyService::connect(&config.location(), &config.kek(), options).await.unwrap();
    let entries = service.entries(0, u64::MAX).await.unwrap();
    service.close().await;
    let entries = entries.iter().map(|entry| serde_json::from_str::<Value>(&entry.body).unwrap());
    entries.filter(|entry| entry["event"] == "secret").collect()
}

/// A replica whose clock is far ahead changes the keys before their time. The others take the keys over and say so; they do not change them
/// back and forth, and none of it is unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_clock_of_one_replica_far_ahead() {
    let server = Postgres::start().unwrap();
    let (database, shared) = (server.database().unwrap(), tempfile::tempdir().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let kek = shared.path().join("kek");
    let right = TestClock::at(now.as_secs());
    let (one, config) = Replica::start(&database, &kek, &right).await;
    one.import().await;
    let guest = GuestKey::new();
    let first = one.token(&guest).await;
    assert!(
        changes(&config).await.is_empty(),
        "keys that are made at the first start do not change"
    );

    let ahead = TestClock::at(now.as_secs() + 400 * DAY_S);
    let (other, _) = Replica::start(&database, &kek, &ahead).await;
    let changed = changes(&config).await;
    assert_eq!(changed.len(), 1, "it is in the log");
    for _ in 0..2 {
        let refused = one.keys.check().await;
        let ahead = |ahead_s: u64| ahead_s.abs_diff(400 * DAY_S) < 60;
        match refused {
            Err(TokenKeysError::Clock { ahead_s }) => assert!(ahead(ahead_s), "{ahead_s}"),
            other => panic!("{other:?}"),
        }
    }
    let next = one.token(&guest).await;
    let kid = part(&next, 0)["kid"].as_str().unwrap().to_owned();
    assert_ne!(part(&first, 0)["kid"], kid.as_str(), "the keys are taken over all the same");
    assert!(changed[0]["reasons"][0].as_str().unwrap().contains(&kid), "{changed:?}");
    assert_eq!((one.release(&first).await, one.release(&next).await), (200, 200));
    // Another replica with the right time starts, and changes nothing.
    let (third, _) = Replica::start(&database, &kek, &right).await;
    assert_eq!(third.release(&next).await, 200);
    assert_eq!(changes(&config).await.len(), 1);
    right.forward(400 * DAY_S);
    assert!(!one.keys.check().await.unwrap(), "as old as it is by the other's clock");
    for replica in [one, other, third] {
        replica.world.stop().await;
    }
}
