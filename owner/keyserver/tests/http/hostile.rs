//! Clients that are slow, huge, malformed or many; and everybody else meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::*;
use reqwest::Method;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections that an address may have.
const KEPT: usize = 8;

async fn narrow() -> World {
    World::with(|config, _| {
        config.limits.header_timeout_s = Some(1);
        config.limits.request_timeout_s = Some(1);
        config.limits.connections_per_client = Some(KEPT);
        config.limits.body_bytes = Some(4096);
        config.limits.shutdown_timeout_s = Some(1);
    })
    .await
}

/// A connection from another address of loopback than everybody else's.
async fn tcp(to: SocketAddr, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn tls(world: &World, from: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp(world.address, from).await).await
}

async fn assert_served(world: &World) {
    assert_eq!(world.call("auditor", Method::GET, "/v1/log/head", None).await.0, 200);
}

/// What the service says until it hangs up.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_clients_that_are_slow() {
    let world = narrow().await;
    let mut silent = tcp(world.address, "127.0.0.2").await;
    let mut half_head = tls(&world, "127.0.0.2").await.unwrap();
    half_head.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut half_body = tls(&world, "127.0.0.2").await.unwrap();
    half_body
        .write_all(b"POST /v1/release HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let mut idle = tls(&world, "127.0.0.2").await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_served(&world).await;
    // Each is hung up on by the service; a test that waits for ever would be the failure.
    assert_eq!(rest(&mut silent).await, "");
    let said = rest(&mut half_head).await;
    assert!(said.is_empty() || said.contains("408"), "{said}");
    assert!(rest(&mut half_body).await.contains("408"));
    assert!(rest(&mut idle).await.contains("200 OK"));
    assert_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_requests_that_are_huge_or_malformed() {
    let world = narrow().await;
    let say = async |bytes: &[u8]| {
        let mut stream = tls(&world, "127.0.0.2").await.unwrap();
        let _ = stream.write_all(bytes).await;
        let said = rest(&mut stream).await;
        said.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let long = "a".repeat(64 * 1024);
    assert_eq!(say(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await, "200");
    for bad in [
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        "x: 1\r\n".repeat(200),
        "POST /v1/release HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999999\r\nconnection: close\r\n\r\n".to_owned(),
        "POST /v1/release HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /v1/release HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        "\0\0\0\0".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let status = say(bad.as_bytes()).await;
        assert!(status.is_empty() || status.starts_with('4'), "{:.60}: {status}", bad);
    }
    let (status, answer) =
        world.call("", Method::POST, "/v1/release", Some(json!({"x":"y".repeat(5000)}))).await;
    assert_eq!((status.as_u16(), answer["error"]["code"].as_str()), (413, Some("PayloadTooLarge")));
    let mut plain = tcp(world.address, "127.0.0.2").await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(!rest(&mut plain).await.contains("HTTP"), "nothing is said in the clear");
    assert_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_many_connections_of_one_address() {
    let world = narrow().await;
    let mut refused = 0;
    // 10,000, in rows that a process may have open on any machine.
    for _ in 0..25 {
        let mut row = Vec::new();
        for _ in 0..400 {
            row.push(tcp(world.address, "127.0.0.2").await);
        }
        // Whoever may have no more connections gets no handshake, while the first ones are waited for.
        refused += usize::from(tls(&world, "127.0.0.2").await.is_err());
        assert_served(&world).await;
        // The first ones may wait for what they do not say; all others are hung up on.
        for mut stream in row.drain(KEPT..) {
            assert_eq!(rest(&mut stream).await, "");
        }
    }
    assert!(refused > 0, "the address had as many connections as it liked");
    assert_served(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_many_requests_of_one_address() {
    let world = World::with(|config, _| config.limits.requests_per_second = Some(5)).await;
    let mut stream = tls(&world, "127.0.0.2").await.unwrap();
    let mut said = String::new();
    for number in 0..50 {
        let close = if number == 49 { "connection: close\r\n" } else { "" };
        stream
            .write_all(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{close}\r\n").as_bytes())
            .await
            .unwrap();
    }
    said.push_str(&rest(&mut stream).await);
    let (served, throttled) = (said.matches(" 200 OK").count(), said.matches(" 429 ").count());
    assert_eq!(served + throttled, 50);
    assert!(
        throttled > 0 && said.to_lowercase().contains("retry-after: 1"),
        "{served} of 50 were served"
    );
    assert_served(&world).await;
    world.stop().await;
}

/// What is open when the service is told to stop is answered; what hangs does not hold it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_what_is_open_and_waits_for_nobody() {
    let world = narrow().await;
    let address = world.address;
    let mut hanging = tls(&world, "127.0.0.2").await.unwrap();
    hanging
        .write_all(b"POST /v1/release HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    assert_served(&world).await;
    world.stop().await;
    let _ = rest(&mut hanging).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
