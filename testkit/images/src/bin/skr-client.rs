//! A client of the API of AKS' key-release sidecar, written by this project from the API's description: it asks on localhost for a report, a token
//! and a key, and prints the answers.
//!
//! Environment: `MAA_ENDPOINT`, `AKV_ENDPOINT`, `KID`, `ACCESS_TOKEN`; `SKR_PORT`, 8080 where it is not set.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the sidecar may take to start.
const START: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(100);
/// `{"nonce":"of the client"}`
const RUNTIME_DATA: &str = "eyJub25jZSI6Im9mIHRoZSBjbGllbnQifQ==";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("skr-client: {words}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let start = Instant::now();
    let status = loop {
        match ask("GET", "/status", "") {
            Ok(answer) => break answer,
            Err(words) if start.elapsed() > START => return Err(words),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    println!("status {} {}", status.0, status.1);
    let (maa, akv) = (var("MAA_ENDPOINT")?, var("AKV_ENDPOINT")?);
    let data = json!({"runtime_data": RUNTIME_DATA});
    print("raw", "/attest/raw", &data)?;
    let (code, combined) = post("/attest/combined", &data)?;
    let short = |name: &str| combined[name].as_str().map(str::to_owned);
    let certificates = short("endorsements").unwrap_or_default().len();
    println!(
        "combined {code} {}",
        json!({"endorsed_tcb": short("endorsed_tcb"), "evidence": short("evidence"), "endorsements_chars": certificates})
    );
    print("maa", "/attest/maa", &json!({"maa_endpoint": maa, "runtime_data": RUNTIME_DATA}))?;
    let release = json!({
        "maa_endpoint": maa,
        "akv_endpoint": akv,
        "kid": var("KID")?,
        "access_token": var("ACCESS_TOKEN")?,
    });
    print("release", "/key/release", &release)
}

fn var(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set"))
}

fn print(what: &str, path: &str, body: &Value) -> Result<(), String> {
    let (code, answer) = post(path, body)?;
    println!("{what} {code} {answer}");
    Ok(())
}

fn post(path: &str, body: &Value) -> Result<(u16, Value), String> {
    ask("POST", path, &body.to_string())
}

/// One request on a connection of its own: status code and JSON of the answer.
fn ask(method: &str, path: &str, body: &str) -> Result<(u16, Value), String> {
    let port = std::env::var("SKR_PORT").unwrap_or_else(|_| "8080".to_owned());
    let failed = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = TcpStream::connect(format!("localhost:{port}")).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let malformed = || format!("{method} {path}: answer is not HTTP with JSON: {answer:.200}");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, serde_json::from_str(body).map_err(|_| malformed())?))
}
