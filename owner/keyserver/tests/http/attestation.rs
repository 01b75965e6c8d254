//! The attestation service beside the vault: evidence becomes a token, and the token a key.

use ah_digest::Sha256;
use ah_evidence::ReportData;
use ah_keyserver::{StartError, start};
use reqwest::Method;
use serde_json::{Value, json};

use crate::evidence::{ARK, body, report};
use crate::support::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// That the owner knows what stands in for the processor.
fn software() -> [Value; 1] {
    [json!({"claim": "x-anchorhold-tee", "equals": "software (not confidential)"})]
}

/// A service that trusts the test's software root where it is told to.
async fn world(trusting: bool) -> World {
    let folder = tempfile::tempdir().unwrap();
    let attest = Issuer::new(AUTHORITY);
    let (mut config, tokens) = configure(folder.path(), &attest);
    if trusting {
        let root = folder.path().join("root.der");
        std::fs::write(&root, ARK).unwrap();
        config.danger_software_root = Some(root);
    }
    let started = start(&config).await.unwrap();
    World::serve(started, attest, tokens, folder)
}

async fn attest(world: &World, runtime: &Value) -> (reqwest::StatusCode, Value) {
    let runtime = runtime.to_string().into_bytes();
    let report = report(ReportData::for_runtime_data(&runtime), Sha256::of("the pod's policy"));
    let path = "/attest/SevSnpVm?api-version=2022-08-01";
    world.call("", Method::POST, path, Some(body(&report, &runtime))).await
}

/// A key for one pod; `tee` is what the policy says of the processor.
async fn import(world: &World, name: &str, host_data: &str, tee: &[Value]) {
    let pod = json!({"claim": "x-ms-sevsnpvm-hostdata", "equals": host_data});
    let claims: Vec<&Value> = [&pod].into_iter().chain(tee).collect();
    let text = json!({"version": "1.0.0", "anyOf": [{"authority": world.url, "allOf": claims}]});
    let policy = ah_keyservice::encode_base64url(text.to_string());
    let key =
        json!({"kty": "oct-HSM", "k": ah_keyservice::encode_base64url(SECRET), "key_size": 256});
    let body =
        json!({"key": key, "attributes": {"exportable": true}, "release_policy": {"data": policy}});
    let path = format!("/keys/{name}?api-version=7.4");
    let (status, answer) = world.call("importer", Method::PUT, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn evidence_becomes_a_token_and_the_token_a_key() {
    let world = world(true).await;
    let guest = GuestKey::new();
    let runtime = json!({"keys": guest.claims(HOST_DATA)["x-ms-runtime"]["keys"]});
    let (status, answer) = attest(&world, &runtime).await;
    assert_eq!(status, 200, "{answer}");
    import(&world, "k", &Sha256::of("the pod's policy").to_string(), &software()).await;
    let (status, answer) =
        world.release("/keys/k/release", json!({"target": answer["token"]})).await;
    assert_eq!(status, 200, "{answer}");
    let opened = guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem);
    assert_eq!(opened.unwrap(), SECRET);
    world.stop().await;
}

#[tokio::test]
async fn attack_token_of_another_pod_of_a_program_and_evidence_under_a_root_that_nobody_trusts() {
    let trusting = world(true).await;
    let guest = GuestKey::new();
    let runtime = json!({"keys": guest.claims(HOST_DATA)["x-ms-runtime"]["keys"]});
    let (_, answer) = attest(&trusting, &runtime).await;
    let (own, other) = (Sha256::of("the pod's policy"), Sha256::of("another pod's policy"));
    import(&trusting, "other", &other.to_string(), &software()).await;
    import(&trusting, "silent", &own.to_string(), &[]).await;
    let target = json!({"target": answer["token"]});
    for (key, word) in [("other", "hostdata"), ("silent", "x-anchorhold-tee")] {
        let path = format!("/keys/{key}/release");
        let (status, refused) = trusting.release(&path, target.clone()).await;
        assert_eq!(status, 403, "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
    trusting.stop().await;
    let strict = world(false).await;
    let (status, answer) = attest(&strict, &runtime).await;
    assert_eq!(status, 400, "{answer}");
    strict.stop().await;
}

/// The vault believes the service beside it, and nobody who says to be it.
#[tokio::test]
async fn attack_tokens_that_name_the_service_as_their_issuer() {
    let world = world(true).await;
    let guest = GuestKey::new();
    let runtime = json!({"keys": guest.claims(HOST_DATA)["x-ms-runtime"]["keys"]});
    let (_, answer) = attest(&world, &runtime).await;
    let token = answer["token"].as_str().unwrap();
    import(&world, "k", &Sha256::of("the pod's policy").to_string(), &software()).await;
    let release = async |token: &str| {
        world.release("/keys/k/release", json!({"target": token})).await.0.as_u16()
    };
    assert_eq!(release(token).await, 200);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let decoded = ah_keyservice::decode_base64(payload).unwrap();
    let mut claims: Value = serde_json::from_slice(&decoded).unwrap();
    claims["x-ms-sevsnpvm-hostdata"] = Sha256::of("another").to_string().into();
    let altered = ah_keyservice::encode_base64url(claims.to_string());
    assert_ne!(release(&format!("{header}.{altered}.{signature}")).await, 200);
    assert_ne!(release(&format!("{signed}.")).await, 200);
    // other keys, the service's name
    let mut claims = guest.claims(&Sha256::of("the pod's policy").to_string());
    claims["iss"] = world.url.clone().into();
    claims["x-anchorhold-tee"] = "software (not confidential)".into();
    assert_ne!(release(&Issuer::new(&world.url).token(&claims)).await, 200);
    world.stop().await;
}

/// Keys under the service's own name would be silently left aside, or worse, believed beside its own.
#[tokio::test]
async fn attack_issuer_of_the_services_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let attest = Issuer::new(AUTHORITY);
    let (mut config, _) = configure(folder.path(), &attest);
    config.url = Some(format!("{AUTHORITY}.example"));
    assert!(start(&config).await.is_ok());
    config.url = Some(AUTHORITY.to_owned());
    let refused = start(&config).await.err().unwrap();
    assert!(matches!(refused, StartError::OwnIssuer(url) if url == AUTHORITY));
}
