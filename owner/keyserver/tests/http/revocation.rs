//! Revocation lists, from a key distribution service on loopback to a token that is refused. Skipped, with a line that says so, where the
//! recordings are not beside this checkout.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ah_keyserver::{RevocationConfig, start_with};
use ah_keyservice::{decode_base64, encode_base64url};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const VECTORS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors/snp-synthetic");
/// Within the time of certificates and lists.
const THEN_S: u64 = 1_790_000_000;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(VECTORS).join(name)).unwrap()
}

/// Has the list for VCEKs of Milan and nothing else.
fn kds(list: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = String::new();
            let mut reader = BufReader::new(&stream);
            let _ = reader.read_line(&mut asked);
            let mut line = String::from(" ");
            while line.trim() != "" {
                line.clear();
                let _ = reader.read_line(&mut line);
            }
            let (status, body) = match asked.contains("/vcek/v1/Milan/crl") {
                true => ("200 OK", list.as_slice()),
                false => ("404 Not Found", [].as_slice()),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    address
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A request with a report of the synthetic Milan.
fn body() -> Value {
    let chain = ["milan-vcek.der", "milan-ask.der", "milan-ark.der"].map(|name| pem(&file(name)));
    let inner = json!({
        "SnpReport": encode_base64url(file("milan-report-good-v5.bin")),
        "VcekCertChain": encode_base64url(chain.concat()),
    });
    json!({"report": encode_base64url(inner.to_string())})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_report_of_a_revoked_chain_or_without_a_list() {
    if !PathBuf::from(VECTORS).is_dir() {
        eprintln!("skipped: {VECTORS} is not there");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new(AUTHORITY);
    let (mut config, tokens) = configure(folder.path(), &issuer);
    let root = folder.path().join("root.der");
    std::fs::write(&root, file("milan-ark.der")).unwrap();
    config.danger_software_root = Some(root);
    let lists = folder.path().join("collateral");
    config.snp.collateral = Some(lists.clone());
    config.snp.kds = Some(kds(file("milan-crl-empty.der")));
    config.snp.revocation = RevocationConfig::Required;
    let started = start_with(&config, TestClock::at(THEN_S)).await.unwrap();
    let world = World::serve(started, issuer, tokens, folder);
    let attest = async || {
        let path = "/attest/SevSnpVm?api-version=2022-08-01";
        let (status, answer) = world.call("", Method::POST, path, Some(body())).await;
        (status.as_u16(), answer)
    };
    // The list was fetched before the first guest came.
    let (status, answer) = attest().await;
    assert_eq!(status, 200, "{answer}");
    let payload = answer["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&decode_base64(&payload).unwrap()).unwrap();
    assert_eq!(claims["x-anchorhold-revocation"], "not revoked");
    let list = lists.join("amd/Milan/vcek.crl");
    std::fs::write(&list, file("milan-crl-ask-revoked.der")).unwrap();
    let (status, answer) = attest().await;
    assert!(status == 400 && answer.to_string().contains("revoked"), "{answer}");
    std::fs::remove_file(&list).unwrap();
    let (status, answer) = attest().await;
    let words = "cannot be checked for revocation: there is no amd/Milan/vcek.crl";
    assert!(status == 400 && answer.to_string().contains(words), "{answer}");
    world.stop().await;
}
