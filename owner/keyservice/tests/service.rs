//! The service as its owner and its peers see it.

mod support;

use ah_keyservice::{Event, OnExisting, Verdict};
use ah_release_api::policy::claim;
use ah_release_api::{KeyKind, RefusedBy, Request, Response, RuntimeData, Secret, frame};
use serde_json::Value;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn lines(world: &World) -> Vec<Value> {
    world.log_text().await.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_decision_is_a_line_without_secrets() {
    let world = World::new().await;
    world.assert_released().await;
    let wrong = world.ask(|request| request.evidence.report[0x50] ^= 1).await;
    refused(wrong, RefusedBy::Verifier, "signature");
    world.service.handle(b"garbage").await;
    assert!(world.service.delete(&key_id()).await.unwrap());
    assert!(!world.service.delete(&key_id()).await.unwrap());

    let lines = lines(&world).await;
    let events: Vec<_> = lines
        .iter()
        .map(|line| (line["event"].as_str().unwrap(), line["decision"].as_str().unwrap()))
        .collect();
    let expect = [
        ("import", "done"),
        ("release", "released"),
        ("release", "refused"),
        ("release", "refused"),
        ("delete", "done"),
    ];
    assert_eq!(events, expect);
    assert_eq!(world.seen.lock().unwrap().len(), lines.len());

    let released = &lines[1];
    assert_eq!(released["time"], "2026-12-01T00:00:00Z");
    assert_eq!(released["key_id"], "demo/message");
    assert_eq!(released["tee"], "software (not confidential)");
    assert_eq!(released["claims"][claim::HOST_DATA], Guest::expected().host_data.to_string());
    assert_eq!(released["conditions"].as_array().unwrap().len(), 6);
    assert_eq!(lines[2]["refused_by"], "verifier");
    assert_eq!(lines[2]["key_id"], "demo/message");
    assert_eq!(lines[3]["key_id"], Value::Null);
    assert!(lines[3]["reasons"].as_array().unwrap().len() > 1, "the log has the causes");

    let text = world.log_text().await;
    assert!(!text.contains(str::from_utf8(SECRET).unwrap()));
    assert!(!text.contains("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="));
}

#[tokio::test]
async fn an_unknown_key_is_named_to_attested_guests_only() {
    let world = World::new().await;
    world.service.delete(&key_id()).await.unwrap();
    refused(world.ask(|_| {}).await, RefusedBy::KeyStore, "there is no key demo/message");
    let unattested = world.ask(|request| request.evidence.report[0x2a0] ^= 1).await;
    refused(unattested, RefusedBy::Verifier, "signature");
}

#[tokio::test]
async fn the_owner_lists_replaces_and_reopens() {
    let world = World::new().await;
    let info = world.service.list().await.unwrap().remove(0).unwrap();
    assert_eq!((info.id.clone(), info.kind()), (key_id(), KeyKind::Oct));
    let other = Secret::new(b"other".to_vec()).unwrap();
    let import = |on_existing| {
        world.service.import(
            &info.id,
            KeyKind::Opaque,
            &other,
            info.rule.clone().unwrap().policy,
            on_existing,
        )
    };
    assert!(import(OnExisting::Refuse).await.is_err());
    import(OnExisting::Replace).await.unwrap();
    let (request, key) = world.request().await;
    let answer = released(world.send(&request).await);
    let secret = open(&world.service, &request, &key, &answer).unwrap();
    assert_eq!((answer.kind, secret.as_bytes()), (KeyKind::Opaque, b"other".as_slice()));
    let last = world.seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.event, last.decision), (Event::Release, Verdict::Released));
}

#[tokio::test]
async fn frames_are_answered_one_by_one_and_bad_ones_end_the_stream() {
    let world = World::new().await;
    let (mut guest, service) = tokio::io::duplex(1024 * 1024);
    let challenge = frame::encode(&Request::Challenge {}.to_json().unwrap()).unwrap();
    let talk = async {
        for _ in 0..2 {
            guest.write_all(&challenge).await.unwrap();
            let length = frame::body_length(read4(&mut guest).await).unwrap();
            let mut body = vec![0; length];
            guest.read_exact(&mut body).await.unwrap();
            assert!(matches!(Response::from_json(&body).unwrap(), Response::Challenge(_)));
        }
        guest.write_all(&[0xff; 4]).await.unwrap();
        assert_eq!(guest.read(&mut [0; 1]).await.unwrap(), 0, "the stream is closed");
    };
    let (served, ()) = tokio::join!(world.service.serve(service), talk);
    assert_eq!(served.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

async fn read4(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> [u8; 4] {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    header
}

#[test]
fn connections_on_threads_are_served() {
    use std::io::{Read as _, Write as _};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let handler = std::sync::Arc::new(world.service).blocking_handler(runtime.handle().clone());
    let (mut guest, host) = std::os::unix::net::UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || handler(host));
    guest.write_all(&frame::encode(&Request::Challenge {}.to_json().unwrap()).unwrap()).unwrap();
    let mut header = [0; 4];
    guest.read_exact(&mut header).unwrap();
    assert!(frame::body_length(header).is_ok());
    drop(guest);
    thread.join().unwrap();
}

#[tokio::test]
async fn attack_log_line_as_long_as_a_message() {
    let world = World::new().await;
    let field = "x".repeat(200_000);
    let message =
        format!(r#"{{"protocol":"anchorhold-key-release/1","message":{{"{field}":{{}}}}}}"#);
    world.service.handle(message.as_bytes()).await;
    let last = world.log_text().await.lines().last().unwrap().len();
    assert!(last < 3000, "{last}");
}

/// Reports are public: whoever has one can send it with every challenge.
#[tokio::test]
async fn attack_log_flooded_with_a_report_that_was_made_for_another_request() {
    let world = World::new().await;
    let start = lines(&world).await.len();
    let (mut request, key) = world.request().await;
    for _ in 0..100 {
        let data =
            RuntimeData { nonce: world.nonce().await, key_id: key_id(), public_key: key.public() };
        request.evidence.runtime_data = data.to_bytes();
        assert!(matches!(world.send(&request).await, Response::Refused(_)));
    }
    assert_eq!(lines(&world).await.len(), start + 60);
}

#[tokio::test]
async fn attack_log_flooded_without_evidence() {
    let world = World::new().await;
    let start = lines(&world).await.len();
    let junk = async |count: usize| {
        for _ in 0..count {
            world.service.handle(b"{}").await;
        }
    };
    junk(1000).await;
    assert_eq!(lines(&world).await.len(), start + 60);
    // What is verified has its line all the time, whether it gets the key or not.
    world.assert_released().await;
    let other = Guest { host_data: ah_digest::Sha256::new([7; 32]), ..Guest::expected() };
    let (mut request, key) = world.request().await;
    let data =
        RuntimeData { nonce: world.nonce().await, key_id: key_id(), public_key: key.public() };
    request.evidence = evidence(&world.processor, &other, data.to_bytes());
    refused(world.send(&request).await, RefusedBy::ReleasePolicy, "hostdata");
    assert_eq!(lines(&world).await.len(), start + 62);
    // A later minute tells how many were left out, and has lines of its own.
    world.clock.0.fetch_add(60, std::sync::atomic::Ordering::SeqCst);
    junk(61).await;
    let told = lines(&world).await;
    assert_eq!(told.len(), start + 62 + 1 + 60);
    assert_eq!(told[start + 62]["left_out"], 940);
    world.service.close().await;
    let last = world.seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.left_out, Some(1));
}
