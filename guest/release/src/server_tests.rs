use std::io::{Read as _, Write as _};
use std::sync::Arc as StdArc;

use ah_release_api::{Refusal, RefusedBy, Request as ApiRequest, Response as ApiResponse};

use super::*;
use crate::client::tests::{FakeService, challenge, client, releasing};

/// Sends `request` as it stands and returns all that comes back.
async fn exchange(service: FakeService, request: Vec<u8>) -> String {
    exchange_when(service, request, Ok(())).await
}

/// What the policy says, each time.
fn always(admitted: Result<(), String>) -> Admission {
    StdArc::new(move || {
        let admitted = admitted.clone();
        Box::pin(async move { admitted })
    })
}

/// The same under a policy that says this.
async fn exchange_when(
    service: FakeService,
    request: Vec<u8>,
    admitted: Result<(), String>,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/release.sock");
    let server =
        ReleaseServer::bind(&path, StdArc::new(client(service).0), always(admitted)).unwrap();
    let task = tokio::spawn(server.serve());
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    })
    .await
    .unwrap();
    task.abort();
    answer
}

#[track_caller]
fn check(answer: &str, status: u16, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
}

async fn get(service: FakeService, path: &str) -> String {
    exchange(service, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()).await
}

async fn post(body: &str) -> String {
    let head =
        format!("POST /v1/evidence HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    exchange(releasing(b"secret"), [head.as_bytes(), body.as_bytes()].concat()).await
}

#[tokio::test]
async fn a_key_is_json() {
    let body = r#"{"key":"c2VjcmV0","kind":"oct"}"#;
    check(&get(releasing(b"secret"), "/v1/keys/demo/message").await, 200, body);
    let old = b"GET /v1/keys/demo/message HTTP/1.0\r\n\r\n".to_vec();
    let answer = exchange(releasing(b"secret"), old).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with(body), "{answer}");
}

#[tokio::test]
async fn attack_keys_and_evidence_before_the_policy_lets_containers_have_them() {
    let refused = || Err("the whole pod first".to_owned());
    let body = r#"{"error":"the whole pod first"}"#;
    let key = b"GET /v1/keys/demo/message HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    check(&exchange_when(releasing(b"secret"), key.clone(), refused()).await, 403, body);
    assert!(exchange(releasing(b"secret"), key).await.starts_with("HTTP/1.1 200 "));
    let own = r#"{"runtime_data":"bWluZQ=="}"#;
    let head =
        format!("POST /v1/evidence HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", own.len());
    let evidence = [head.as_bytes(), own.as_bytes()].concat();
    check(&exchange_when(releasing(b"secret"), evidence, refused()).await, 403, body);
}

#[tokio::test]
async fn evidence_is_json() {
    let answer = post(r#"{"runtime_data":"bWluZQ=="}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let evidence = ah_evidence::Evidence::from_json(body.as_bytes()).unwrap();
    assert_eq!(evidence.runtime_data, b"mine");
}

#[tokio::test]
async fn refusals_keep_their_words_and_have_a_status() {
    for (by, status, name) in [
        (RefusedBy::ReleasePolicy, 403, "release_policy"),
        (RefusedBy::KeyStore, 404, "key_store"),
        (RefusedBy::Service, 502, "service"),
    ] {
        let service = FakeService(StdArc::new(move |request| match request {
            ApiRequest::Challenge {} => challenge(),
            ApiRequest::Release(_) => ApiResponse::Refused(Refusal::new(by, "no")),
        }));
        let body = format!(r#"{{"error":"refused by {by}: no","refused_by":"{name}"}}"#);
        check(&get(service, "/v1/keys/demo/message").await, status, &body);
    }
}

#[tokio::test]
async fn requests_that_mean_nothing_are_refused() {
    for (path, status) in [
        ("/", 404),
        ("/v1/keys", 404),
        ("/v1/keys/", 400),
        ("/v1/keys/../x", 400),
        ("/v1/keys/a%2fb", 400),
        ("/v1/keys/a?x=1", 400),
        ("/v1/evidence", 405),
        ("/v1/evidence/", 404),
        ("//v1/keys/a", 404),
    ] {
        let answer = get(releasing(b"secret"), path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("\r\n\r\n{\"error\":\""), "{path}: {answer}");
    }
    let delete = b"DELETE /v1/keys/a HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let answer = exchange(releasing(b"secret"), delete).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET\r\n"), "{answer}");
}

#[tokio::test]
async fn attack_malformed_and_oversized_requests() {
    for body in [
        "",
        "{}",
        "[]",
        r#"{"runtime_data":"bWluZQ"}"#,
        r#"{"runtime_data":"","x":1}"#,
        r#"{"runtime_data":""} x"#,
    ] {
        assert!(post(body).await.starts_with("HTTP/1.1 400 "), "{body}");
    }
    let most = STANDARD.encode(vec![0; MAX_RUNTIME_DATA_BYTES]);
    assert!(post(&format!(r#"{{"runtime_data":"{most}"}}"#)).await.starts_with("HTTP/1.1 200 "));
    let over = STANDARD.encode(vec![0; MAX_RUNTIME_DATA_BYTES + 1]);
    assert!(post(&format!(r#"{{"runtime_data":"{over}"}}"#)).await.starts_with("HTTP/1.1 413 "));

    let announced =
        b"POST /v1/evidence HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n{".to_vec();
    assert!(exchange(releasing(b"secret"), announced).await.starts_with("HTTP/1.1 413 "));
    let head = [b"GET /v1/keys/a HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 64 * 1024]].concat();
    let answer = exchange(releasing(b"secret"), head).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let garbage = exchange(releasing(b"secret"), b"\x16\x03\x01\0\0\r\n\r\n".to_vec()).await;
    assert!(garbage.starts_with("HTTP/1.1 400 ") || garbage.is_empty(), "{garbage}");
}

#[tokio::test]
async fn one_request_a_connection() {
    let request = b"GET /v1/keys/a HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
    let answer = exchange(releasing(b"secret"), request).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn the_socket_is_for_everybody_and_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/release.sock");
    let bind = || ReleaseServer::bind(&path, StdArc::new(client(releasing(b"")).0), always(Ok(())));
    let first = bind().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
    std::mem::forget(first);
    let second = bind().unwrap();
    drop(second);
    assert!(!path.exists());
    fs::write(&path, "not a socket").unwrap();
    let error = bind().err().unwrap();
    assert_eq!(error.step, "bind", "what is not a socket stays");
}
