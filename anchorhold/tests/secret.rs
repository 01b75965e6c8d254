//! `anchorhold secret seal`, and what `policy` says of what it prints.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use ah_release_api::{Place, Sealed, Secret};
use support::{Desk, PLAIN};

const SEAL: &str = "secret seal --key-file db.key --key-id demo/db";

/// The printed text, opened with the key in `db.key`.
fn opened(desk: &Desk, text: &str, place: &str) -> Vec<u8> {
    let place: Place = place.parse().unwrap();
    let key = Secret::new(std::fs::read(desk.path("db.key")).unwrap()).unwrap();
    let sealed = Sealed::parse(text.trim_end_matches('\n'), &place).unwrap();
    assert_eq!(sealed.key_id().as_str(), "demo/db");
    sealed.open(&key).unwrap().to_vec()
}

#[test]
fn a_secret_is_sealed_for_its_place_and_opens_there() {
    let desk = Desk::new();
    let ran = desk.run_with(&format!("{SEAL} --new-key --env PW"), "sesame\n", &[]).ends(0);
    let ran = ran.says("made db.key").says("newline at the end is left out");
    assert_eq!(opened(&desk, &ran.out, "env:PW"), b"sesame");
    let mode = std::fs::metadata(desk.path("db.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = desk.run_with(&format!("{SEAL} --env PW --keep-newline"), "sesame\n", &[]).ends(0);
    assert_eq!(opened(&desk, &kept.out, "env:PW"), b"sesame\n");
    desk.write("token", "two\nlines\n");
    let file = desk.run(&format!("{SEAL} --file /secret/token --from token")).ends(0);
    assert_eq!(opened(&desk, &file.out, "file:/secret/token"), b"two\nlines\n");
    let again = desk.run_with(&format!("{SEAL} --env PW"), "sesame", &[]).ends(0);
    assert_ne!(again.out, ran.out, "each sealing has an iv of its own");
}

#[test]
fn what_cannot_be_sealed_is_said_and_no_secret_shown() {
    let desk = Desk::new();
    desk.write("short.key", "0123456789");
    let refused = |line: &str, words: &str| {
        let ran = desk.run_with(line, "sesame", &[]).ends(1);
        let ran = ran.says(words);
        assert!(!ran.out.contains("sesame") && !ran.out.contains("0123456789"), "{}", ran.out);
    };
    refused("secret seal --key-file short.key --key-id k --env PW", "has 10 bytes, expected 32");
    refused("secret seal --key-file short.key --new-key --key-id k --env PW", "is there already");
    refused("secret seal --key-file none.key --key-id k --env PW", "reading none.key");
    refused("secret seal --key-file none.key --new-key --key-id ../k --env PW", "key id segment");
    refused("secret seal --key-file none.key --new-key --key-id k --env A=B", "place is");
    refused("secret seal --key-file none.key --new-key --key-id k --file a/b", "place is");
    assert!(!desk.path("none.key").exists());
    desk.run("secret seal --key-file db.key --key-id k").ends(2).says("--env");
}

#[test]
fn a_policy_shows_whose_key_opens_a_value_and_refuses_where_none_would() {
    let desk = Desk::new();
    let seal = |place: &str| {
        let new = if desk.path("db.key").exists() { "" } else { " --new-key" };
        desk.run_with(&format!("{SEAL}{new} {place}"), "sesame", &[]).ends(0).out.trim().to_owned()
    };
    let (mode, other) = (seal("--env MODE"), seal("--env OTHER"));
    desk.write("pod.yaml", &PLAIN.replace("quiet", &mode));
    desk.run("policy generate -f pod.yaml IMAGES -o out.yaml").ends(0);
    desk.run("policy show out.yaml")
        .ends(0)
        .says("MODE=(sealed to key demo/db, opened in the guest)");
    desk.run("policy generate -f pod.yaml --key-service none IMAGES")
        .ends(1)
        .says("container \"web\" has sealed values, and no key service is named");
    let refused = |yaml: String, words: &str| {
        desk.write("bad.yaml", &yaml);
        desk.run("policy generate -f bad.yaml IMAGES").ends(1).says(words);
    };
    refused(PLAIN.replace("quiet", &other), "is for env:OTHER, found at env:MODE");
    refused(PLAIN.replace("quiet", &format!("x{mode}")), "stands inside another text");
    let expanded = PLAIN.replace("quiet", &mode) + "    args: [\"--mode=$(MODE)\"]\n";
    refused(expanded, "command: a sealed value stands inside another text");
    let cut = &mode[..mode.len() - 30];
    refused(PLAIN.replace("quiet", cut), "env:MODE: sealed value: found");
}

#[test]
fn a_sealed_value_of_a_secret_is_not_warned_of() {
    let desk = Desk::new();
    let sealed = desk.run_with(&format!("{SEAL} --new-key --env MODE"), "sesame", &[]).ends(0).out;
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{mode: {value}}}\n---\n"
        ) + &PLAIN.replace("value: quiet", "valueFrom: {secretKeyRef: {name: s, key: mode}}")
    };
    desk.write("open.yaml", &secret("hush-hush"));
    desk.run("policy generate -f open.yaml IMAGES")
        .ends(0)
        .says("values of Secrets stand in policies");
    desk.write("pod.yaml", &secret(sealed.trim()));
    let ran = desk.run("policy generate -f pod.yaml IMAGES -o out.yaml").ends(0);
    assert!(!ran.out.contains("values of Secrets") && !ran.err.contains("values of Secrets"));
    let shown = desk.run("policy show out.yaml").ends(0).says("(sealed to key demo/db");
    assert!(!shown.out.contains("secrets:"), "{}", shown.out);
}
