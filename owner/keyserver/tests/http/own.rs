//! Our own routes: the log with its proofs, health, metrics, and messages of guests.

use crate::support::*;
use ah_keyservice::{Audit, ConsistencyProof, InclusionProof, SignedHead, StoredEntry, merkle};
use ah_release_api::{Challenge, Request, Response};
use reqwest::Method;
use serde_json::{Value, json};

async fn get<T: serde::de::DeserializeOwned>(world: &World, path: &str) -> T {
    let (status, answer) = world.call("auditor", Method::GET, path, None).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer).unwrap()
}

#[tokio::test]
async fn the_log_has_every_decision_and_proves_itself() {
    let world = World::new().await;
    world.import_oct("a", b"1").await;
    let pinned: SignedHead = get(&world, "/v1/log/head").await;
    world.import_oct("b", b"2").await;
    let guest = GuestKey::new();
    let token = world.attest.token(&guest.claims(HOST_DATA));
    assert_eq!(world.release("/keys/a/release", json!({"target":token})).await.0, 200);
    assert_eq!(world.release("/keys/none/release", json!({"target":token})).await.0, 404);
    assert_eq!(world.call("auditor", Method::DELETE, "/keys/a?api-version=7.4", None).await.0, 403);

    let head: SignedHead = get(&world, "/v1/log/head").await;
    let page: Value = get(&world, "/v1/log/entries?start=0&limit=1000").await;
    let entries: Vec<StoredEntry> = serde_json::from_value(page["entries"].clone()).unwrap();
    let said: Vec<(String, String, String)> = entries
        .iter()
        .map(|entry| {
            let body: Value = serde_json::from_str(&entry.body).unwrap();
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            (text("event"), text("decision"), text("caller"))
        })
        .collect();
    let expect = [
        ("import", "done", "importer"),
        ("import", "done", "importer"),
        ("release", "released", "releaser"),
        ("release", "refused", "releaser"),
        ("access", "refused", "auditor"),
    ];
    assert_eq!(said, expect.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    let mut audit = Audit::begin(head.clone(), Some(pinned.clone())).unwrap();
    entries.iter().for_each(|entry| audit.entry(entry.body.as_bytes()));
    assert_eq!(audit.finish().unwrap(), head);

    let proof: ConsistencyProof =
        get(&world, &format!("/v1/log/consistency/{}", pinned.size)).await;
    assert!(merkle::extends(
        (pinned.size, &pinned.root),
        (proof.head.size, &proof.head.root),
        &proof.path
    ));
    let proof: InclusionProof = get(&world, "/v1/log/inclusion/2").await;
    let leaf = merkle::leaf_hash(proof.entry.body.as_bytes());
    assert!(merkle::includes(&proof.head.root, proof.head.size, 2, &leaf, &proof.path));
    assert_eq!(world.call("auditor", Method::GET, "/v1/log/inclusion/5", None).await.0, 404);
    let (status, _) = world.call("auditor", Method::GET, "/v1/log/entries?from=0", None).await;
    assert_eq!(status, 400, "an unknown member is no silent zero");
    world.stop().await;
}

#[tokio::test]
async fn guests_are_challenged_and_answered() {
    let world = World::new().await;
    let (status, answer) = world.call("", Method::POST, "/v1/challenge", None).await;
    assert_eq!(status, 200);
    let challenge: Challenge = serde_json::from_value(answer).unwrap();
    assert_eq!(challenge.expires_in_s, 120);
    let send = async |body: Vec<u8>| {
        let answer =
            world.client.post(format!("{}/v1/release", world.url)).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, Response::from_json(&answer.bytes().await.unwrap()).unwrap())
    };
    let (status, message) = send(Request::Challenge {}.to_json().unwrap()).await;
    assert!(status == 200 && matches!(message, Response::Challenge(_)));
    let (status, message) = send(b"garbage".to_vec()).await;
    assert!(status == 400 && matches!(message, Response::Refused(_)));
    let (_, identity) = world.call("", Method::GET, "/v1/identity", None).await;
    assert_eq!(identity["public_key"].as_str().unwrap().len(), 44);
    world.stop().await;
}

#[tokio::test]
async fn health_and_metrics_tell_what_is_going_on() {
    let world = World::new().await;
    world.import_oct("a", b"1").await;
    assert_eq!(
        world.call("", Method::GET, "/healthz", None).await,
        (200.try_into().unwrap(), "ok\n".into())
    );
    assert_eq!(
        world.call("", Method::GET, "/readyz", None).await,
        (200.try_into().unwrap(), "ready\n".into())
    );
    let (_, text) = world.call("", Method::GET, "/metrics", None).await;
    let text = text.as_str().unwrap();
    for line in [
        "anchorhold_log_entries 1",
        "anchorhold_requests_total{method=\"PUT\",route=\"/keys/{name}\",status=\"200\"} 1",
        "anchorhold_request_seconds_count{method=\"GET\",route=\"/readyz\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    world.stop().await;
}
