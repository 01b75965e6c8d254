//! The key service as a process: killed at work, twice on one database, and asked by the commands that people type.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ah_testkit_postgres::Postgres;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Client, Method};
use serde_json::{Value, json};

const ISSUER: &str = "https://attest.example";
const HOST_DATA: &str = "cadd74f71ebb8fbf9782baab649612520f3c416bc5ce9ac768808ddc8d9b031c";
/// Clients at work at the same time.
const CLIENTS: usize = 4;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Imports, and as many releases; `cargo xtask soak keyservice` asks for more.
fn requests() -> usize {
    asked_for("ANCHORHOLD_KILL_REQUESTS", 240)
}

/// How often the service is killed.
fn kills() -> usize {
    asked_for("ANCHORHOLD_KILLS", 3)
}

fn asked_for(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// A folder with a configuration, and a token that any guest of these tests has.
struct Site {
    folder: tempfile::TempDir,
    token: String,
}

impl Site {
    fn new(database: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let n = encode(key.public_key().modulus().big_endian_without_leading_zero());
        let jwks = json!({"keys":[{"kid":"k","kty":"RSA","n":n,"e":"AQAB"}]});
        std::fs::write(folder.path().join("jwks.json"), jwks.to_string()).unwrap();
        let database = database.map(|url| format!("database = {url:?}\n")).unwrap_or_default();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate = {:?}\n{database}[limits]\nrequests_per_second = 100000\n\
             [[attestation]]\nissuer = {ISSUER:?}\njwks_file = {:?}\n",
            folder.path().join("state"),
            folder.path().join("jwks.json"),
        );
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let claims = json!({
            "iss": ISSUER, "exp": 32_503_680_000u64, "x-ms-sevsnpvm-hostdata": HOST_DATA,
            "x-ms-runtime": {"keys":[{"e":"AQAB","key_ops":["encrypt"],"kid":"w","kty":"RSA","n":n}]},
        });
        let text = format!(
            "{}.{}",
            encode(json!({"alg":"RS256","kid":"k"}).to_string()),
            encode(claims.to_string())
        );
        let mut signature = vec![0; 256];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        Self { token: format!("{text}.{}", encode(signature)), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_anchorhold"))
            .args(["keyservice", "serve", "--config"])
            .arg(self.path("config.toml"))
            .env("HOME", self.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("https://localhost:"), "{url:?}");
        let pem = std::fs::read(self.path("state/ca.pem")).unwrap();
        let root = reqwest::Certificate::from_pem(&pem).unwrap();
        let client = Client::builder()
            .tls_certs_only([root])
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .unwrap();
        let caller =
            std::fs::read_to_string(self.path("state/first-token")).unwrap().trim().to_owned();
        Running { child, service: Arc::new(Service { client, url: url.trim().to_owned(), caller }) }
    }
}

struct Running {
    child: Child,
    service: Arc<Service>,
}

impl Running {
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Service {
    client: Client,
    url: String,
    caller: String,
}

impl Service {
    /// `None` when no whole answer came.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request =
            self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.caller);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    async fn import(&self, name: &str) -> bool {
        let policy = json!({"version":"1.0.0","anyOf":[{"authority":ISSUER,"allOf":[
            {"claim":"x-ms-sevsnpvm-hostdata","equals":HOST_DATA}]}]});
        let body = json!({
            "key": {"kty":"oct","k":encode(name)},
            "attributes": {"exportable":true},
            "release_policy": {"data":encode(policy.to_string())},
        });
        let answer =
            self.call(Method::PUT, &format!("/keys/{name}?api-version=7.4"), Some(body)).await;
        answer.is_some_and(|(status, answer)| {
            assert_eq!(status, 200, "{answer}");
            true
        })
    }

    async fn release(&self, name: &str, token: &str) -> bool {
        let path = format!("/keys/{name}/release?api-version=7.4");
        let answer = self.call(Method::POST, &path, Some(json!({"target":token}))).await;
        answer.is_some_and(|(status, answer)| {
            assert_eq!(status, 200, "{answer}");
            true
        })
    }

    /// Every entry of the log, after its tree is checked against its head.
    async fn log(&self) -> Vec<Value> {
        let (_, head) = self.call(Method::GET, "/v1/log/head", None).await.unwrap();
        let mut audit =
            ah_keyservice::Audit::begin(serde_json::from_value(head).unwrap(), None).unwrap();
        let mut all = Vec::new();
        loop {
            let path = format!("/v1/log/entries?start={}", all.len());
            let (_, page) = self.call(Method::GET, &path, None).await.unwrap();
            let entries = page["entries"].as_array().unwrap();
            if entries.is_empty() {
                audit.finish().expect("the log is whole");
                return all;
            }
            for entry in entries {
                let body = entry["body"].as_str().unwrap();
                audit.entry(body.as_bytes());
                all.push(serde_json::from_str(body).unwrap());
            }
        }
    }
}

/// What was answered with a yes.
#[derive(Default)]
struct Acknowledged {
    imports: Vec<String>,
    releases: Vec<String>,
}

/// One client: imports keys and asks for each at once, until it has done its part or gets no answer.
async fn work(
    service: Arc<Service>,
    token: String,
    names: Arc<AtomicUsize>,
    until: usize,
) -> Acknowledged {
    let mut done = Acknowledged::default();
    loop {
        let number = names.fetch_add(1, Ordering::SeqCst);
        let name = format!("k{number}");
        if number >= until || !service.import(&name).await {
            return done;
        }
        done.imports.push(name.clone());
        if !service.release(&name, &token).await {
            return done;
        }
        done.releases.push(name);
    }
}

async fn survives_kills(site: Site) {
    let names = Arc::new(AtomicUsize::new(0));
    let (mut imports, mut releases) = (BTreeSet::new(), Vec::new());
    let kills = kills();
    for round in 1..=kills {
        let mut running = site.start();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                tokio::spawn(work(
                    running.service.clone(),
                    site.token.clone(),
                    names.clone(),
                    usize::MAX,
                ))
            })
            .collect();
        let enough = requests() * round / kills;
        // Clients that were answered with something else than a yes have failed, which is told below.
        let at_work = || clients.iter().any(|client| !client.is_finished());
        while names.load(Ordering::SeqCst) < enough && at_work() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        running.kill();
        for client in clients {
            let done = client.await.unwrap();
            imports.extend(done.imports);
            releases.extend(done.releases);
        }
    }
    assert!(
        imports.len() >= requests() - (CLIENTS + 1) * kills,
        "{} imports were answered",
        imports.len()
    );
    let running = site.start();
    let log = running.service.log().await;
    let logged = |event: &str| -> BTreeSet<String> {
        let of =
            log.iter().filter(|entry| entry["event"] == event && entry["decision"] != "refused");
        of.map(|entry| entry["key_id"].as_str().unwrap().to_owned()).collect()
    };
    let (logged_imports, logged_releases) = (logged("import"), logged("release"));
    assert!(imports.is_subset(&logged_imports), "an acknowledged import has no entry");
    assert!(
        releases.iter().all(|name| logged_releases.contains(name)),
        "an acknowledged release has no entry"
    );
    // A key and its entry are there together, or neither of them.
    let mut stored = BTreeSet::new();
    let mut path = "/keys?api-version=7.4".to_owned();
    loop {
        let (_, page) = running.service.call(Method::GET, &path, None).await.unwrap();
        let kids = page["value"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap());
        stored.extend(kids.map(|kid| kid.rsplit('/').next().unwrap().to_owned()));
        match page["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix(&running.service.url).unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(stored, logged_imports);
    eprintln!(
        "{} imports and {} releases were acknowledged, {} entries",
        imports.len(),
        releases.len(),
        log.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_on_sqlite_has_lost_nothing_that_it_acknowledged() {
    survives_kills(Site::new(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_on_postgresql_has_lost_nothing_that_it_acknowledged() {
    let server = Postgres::start().unwrap();
    survives_kills(Site::new(Some(server.database().unwrap()))).await;
}

/// A key that one replica imported is released by the other; both write one log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_keys_and_log() {
    let server = Postgres::start().unwrap();
    let site = Site::new(Some(server.database().unwrap()));
    let (one, other) = (site.start(), site.start());
    let names = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = [&one, &other]
        .iter()
        .map(|running| {
            tokio::spawn(work(running.service.clone(), site.token.clone(), names.clone(), 40))
        })
        .collect();
    let mut imports = Vec::new();
    for client in clients {
        imports.extend(client.await.unwrap().imports);
    }
    assert_eq!(imports.len(), 40);
    for name in &imports {
        assert!(
            one.service.release(name, &site.token).await
                && other.service.release(name, &site.token).await
        );
    }
    let (log, same) = (one.service.log().await, other.service.log().await);
    assert_eq!((log.len(), log == same), (160, true));
}

/// Runs the command; gives its exit code and what it wrote.
fn anchorhold(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_anchorhold"))
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env("HOME", data)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_ask_the_service_and_the_local_store_alike() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new(None);
    let running = site.start();
    for name in ["a", "b"] {
        assert!(running.service.import(name).await);
    }
    let data = site.path("data");
    let (ca, token) = (site.path("state/ca.pem"), site.path("state/first-token"));
    let remote = |words: &[&str]| {
        let more = [
            "--service",
            &running.service.url,
            "--ca",
            ca.to_str().unwrap(),
            "--token-file",
            token.to_str().unwrap(),
        ];
        anchorhold(&data, &[words, &more].concat())
    };
    let (code, out, error) = remote(&["key", "list"]);
    assert!(code == 0 && out.contains("a\n") && out.contains("b\n"), "{out}{error}");
    assert_eq!(remote(&["key", "disable", "a"]).0, 0);
    assert!(remote(&["key", "show", "a"]).1.contains("disabled"));
    let shown: Value = serde_json::from_str(&remote(&["key", "show", "a", "--json"]).1).unwrap();
    assert_eq!((&shown["attributes"]["enabled"], shown["key"].get("k")), (&json!(false), None));
    assert_eq!(remote(&["key", "enable", "a"]).0, 0);
    assert_eq!(remote(&["key", "rotate", "a"]).0, 0);
    assert_eq!(remote(&["key", "delete", "b"]).0, 0);
    let (code, _, error) = remote(&["key", "show", "b"]);
    assert!(code == 1 && error.contains("there is no key b"), "{error}");

    let pin = site.path("head.json");
    let verify = || remote(&["log", "verify", "--pin", pin.to_str().unwrap()]);
    let (code, out, error) = verify();
    assert!(code == 0 && out.contains("the log is whole: 6 entries"), "{out}{error}");
    assert!(out.contains("no earlier head to compare with"), "{out}");
    assert_eq!(remote(&["key", "rotate", "a"]).0, 0);
    let (code, out, error) = verify();
    assert!(code == 0 && out.contains("goes on from the head"), "{out}{error}");
    let log = remote(&["log", "show"]).1;
    assert!(log.contains("delete") && log.contains("caller: first"), "{log}");
    assert_eq!(remote(&["log", "show", "--from", "6", "--json"]).1.lines().count(), 1);

    // The operator of the service rewrites its log; the head that was kept says so.
    let mut head: Value = serde_json::from_slice(&std::fs::read(&pin).unwrap()).unwrap();
    let kept = head.clone();
    head["size"] = 3.into();
    std::fs::write(&pin, head.to_string()).unwrap();
    let (code, _, error) = verify();
    assert!(code == 1 && error.contains("signature of the log's head does not verify"), "{error}");
    std::fs::write(&pin, kept.to_string()).unwrap();

    let backup = site.path("keys.backup");
    let (code, _, error) = remote(&["key", "backup", backup.to_str().unwrap()]);
    assert!(code == 0, "{error}");
    assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let local = site.path("local");
    let restore = || anchorhold(&local, &["key", "restore", backup.to_str().unwrap()]);
    let refused = restore().2;
    assert!(
        refused.contains("there is no key-encryption key"),
        "nothing is restored without it: {refused}"
    );
    std::fs::copy(site.path("state/key-encryption-key"), local.join("keys/key-encryption-key"))
        .unwrap();
    let (code, out, error) = restore();
    assert!(code == 0 && out.contains("restored 1 keys and 7 entries"), "{out}{error}");
    let (code, out, _) = anchorhold(&local, &["key", "show", "a"]);
    assert!(code == 0 && out.contains("released under its policy"), "{out}");
    let (code, out, error) = anchorhold(&local, &["log", "verify", "--pin", pin.to_str().unwrap()]);
    assert!(code == 0, "the restored log is the same log: {out}{error}");

    let (code, _, error) = anchorhold(&data, &["key", "list", "--service", "http://localhost"]);
    assert!(code == 1 && error.contains("https"), "{error}");
    let stranger = ["key", "list", "--service", &running.service.url, "--ca", ca.to_str().unwrap()];
    let (code, _, error) = anchorhold(&data, &stranger);
    assert!(code == 1 && error.contains("401") && error.contains("hint: --token-file"), "{error}");
}

#[test]
fn a_configuration_that_is_wrong_is_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\nstat = \"x\"\n").unwrap();
    let words = ["keyservice", "serve", "--config", path.to_str().unwrap()];
    let (code, out, error) = anchorhold(folder.path(), &words);
    assert!(code == 1 && out.is_empty(), "{out}");
    assert!(
        error.contains("line 2")
            && error.contains("unknown field `stat`")
            && error.contains("hint: "),
        "{error}"
    );
}
