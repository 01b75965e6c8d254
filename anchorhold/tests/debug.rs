//! Keys and grants of debug sessions, as people type them.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use ah_digest::Sha256;
use ah_grant::{Command as Granted, OwnerKey, SignedGrant};
use support::{Desk, PLAIN};

const CHALLENGE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

/// A key, and a pod that names it.
fn desk() -> (Desk, OwnerKey) {
    let desk = Desk::new();
    let key = desk.run("debug key-gen -o debug.pem").ends(0).says("anchorhold.dev/debug-key");
    let key = key.out.trim().to_owned();
    let yaml = format!("metadata:\n  annotations:\n    anchorhold.dev/debug-key: {key}\n");
    let text = PLAIN.replacen("metadata:\n", &yaml, 1);
    assert!(text.contains(&key), "{text}");
    desk.generated("out.yaml", &text);
    (desk, key.parse().unwrap())
}

fn grant(more: &str) -> String {
    format!("debug grant --key debug.pem --challenge {CHALLENGE} {more}")
}

#[test]
fn a_key_is_its_owners_alone_and_openssl_reads_it() {
    let (desk, key) = desk();
    let mode = std::fs::metadata(desk.path("debug.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = desk.read("debug.pem");
    desk.run("debug key-gen -o debug.pem").ends(1).says("is there already");
    assert_eq!(desk.read("debug.pem"), before);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(desk.path("debug.pem"));
    let public = openssl.output().unwrap();
    assert!(public.status.success(), "{public:?}");
    // RFC 8410: 12 bytes in front of the key's own 32.
    let own = base64_of(&public.stdout[12..]);
    assert_eq!(own.parse::<OwnerKey>().unwrap(), key);
    // And the other way round.
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(desk.path("other.pem"));
    assert!(openssl.status().unwrap().success());
    desk.run(&grant("--policy out.yaml --any-command").replace("debug.pem", "other.pem"))
        .ends(1)
        .says("the policy's debug key is")
        .says("hint: --key");
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_token_says_what_was_typed() {
    let (desk, key) = desk();
    let shown = desk.run("policy show out.yaml --json").ends(0).json();
    let document: Sha256 = shown["pods"][0]["host_data"].as_str().unwrap().parse().unwrap();
    desk.run("policy show out.yaml").says("MAY RUN ANY COMMAND").says(&key.to_string());
    let ran = desk.run(&grant("--policy out.yaml --for 2m --tty -- ps -ef")).ends(0);
    let ran = ran.says("passes through the host").says("kubectl exec -t POD -c web");
    let granted = SignedGrant::from_token(ran.out.trim()).unwrap().verify(&key).unwrap();
    assert_eq!(granted.command, Granted::Exact(vec!["ps".into(), "-ef".into()]));
    assert_eq!((granted.seconds, granted.stdin, granted.terminal), (120, false, true));
    assert_eq!((granted.policy, granted.container.as_str()), (document, "web"));
    assert_eq!(granted.challenge.to_string(), CHALLENGE);
    let line = grant(&format!("--host-data {document} -c web --stdin --any-command"));
    let ran = desk.run(&line).ends(0).says("the host can also write");
    let granted = SignedGrant::from_token(ran.out.trim()).unwrap().verify(&key).unwrap();
    assert_eq!((granted.command, granted.seconds, granted.stdin), (Granted::Any, 900, true));
}

#[test]
fn attack_a_grant_that_would_be_for_something_else_is_not_signed() {
    let (desk, _) = desk();
    desk.generated("plain.yaml", PLAIN);
    for (more, code, text) in [
        ("--policy plain.yaml --any-command", 1, "the policy has no debug key"),
        ("--policy out.yaml -c other --any-command", 1, "expected one of web"),
        ("--policy out.yaml", 2, "--any-command"),
        ("--policy out.yaml --any-command -- ls", 2, "cannot be used with"),
        ("--any-command", 2, "--policy"),
        ("--policy out.yaml --for 25h --any-command", 2, "up to 24h"),
        ("--policy out.yaml --for 0s --any-command", 2, "up to 24h"),
        ("--policy out.yaml --for 15 --any-command", 2, "expected a time"),
        ("--host-data 00 -c web --any-command", 2, "expected 32"),
    ] {
        let ran = desk.run(&grant(more));
        assert!(ran.out.is_empty(), "{more}: {}", ran.out);
        ran.ends(code).says(text);
    }
    desk.run("debug grant --key debug.pem --challenge short --policy out.yaml --any-command")
        .ends(2)
        .says("43 characters of base64url");
}
