use std::cell::RefCell;
use std::os::unix::fs::symlink;

use ah_release_api::{Secret, seal};

use super::*;

const VALUE: &[u8] = b"correct horse";

fn key(byte: u8) -> ReleasedKey {
    ReleasedKey { kind: KeyKind::Oct, secret: Secret::new(vec![byte; 32]).unwrap() }
}

fn sealed(id: &str, place: &str, value: &[u8]) -> String {
    let key = Secret::new(vec![7; 32]).unwrap();
    seal(&key, &id.parse().unwrap(), &place.parse().unwrap(), [2; 12], value).unwrap()
}

fn spec(env: &[String], mounts: &[(&Path, &str)]) -> oci::Spec {
    let process = oci::Process { Env: env.to_vec(), ..Default::default() };
    let mount = |(source, destination): &(&Path, &str)| oci::Mount {
        type_: "bind".into(),
        source: source.display().to_string(),
        destination: (*destination).to_owned(),
        ..Default::default()
    };
    oci::Spec {
        Process: protobuf::MessageField::some(process),
        Mounts: mounts.iter().map(mount).collect(),
        ..Default::default()
    }
}

type Ask<'a> = &'a dyn Fn(&KeyId) -> Result<ReleasedKey, String>;

/// As the agent does it: keys by name first, then all of them.
fn open_asking(found: Vec<Found>, ask: Ask<'_>) -> Result<Opened, Failure> {
    let keys = fetch(wanted(&found)?, ask)?;
    open(found, &keys)
}

fn released(_: &KeyId) -> Result<ReleasedKey, String> {
    Ok(key(7))
}

/// The words of an environment that does not open.
#[track_caller]
fn refused(entry: String, ask: Ask<'_>) -> String {
    let found = find(&spec(&[entry], &[]), Path::new("/shared")).unwrap();
    assert_eq!(found.len(), 1);
    let text = open_asking(found, ask).unwrap_err().to_string();
    assert!(!text.contains("correct horse"), "{text}");
    text
}

#[test]
fn sealed_variables_are_opened_and_all_others_left() {
    let entry = format!("PW={}", sealed("demo/db", "env:PW", VALUE));
    let env = ["A=1".to_owned(), entry.clone(), "TOPIC=sealed.orders".to_owned()];
    let asked = RefCell::new(Vec::new());
    let ask = |id: &KeyId| {
        asked.borrow_mut().push(id.to_string());
        Ok(key(7))
    };
    let opened = open_asking(find(&spec(&env, &[]), Path::new("/shared")).unwrap(), &ask).unwrap();
    let mut found = env.clone();
    opened.env.put_into(&mut found).unwrap();
    assert_eq!(found, ["A=1", "PW=correct horse", "TOPIC=sealed.orders"]);
    assert_eq!(asked.into_inner(), ["demo/db"]);
    // A further process of the container has the same environment, and nothing else that is sealed.
    opened.env.put_into(&mut env.clone()).unwrap();
    let mut other = [format!("PX={}", sealed("demo/db", "env:PX", VALUE))];
    let refused = opened.env.put_into(&mut other);
    assert!(matches!(refused, Err(Failure::Denied { .. })), "{refused:?}");
}

#[test]
fn no_sealed_value_no_key() {
    let never = |_: &KeyId| -> Result<ReleasedKey, String> { panic!("a key is asked for") };
    let found = find(&spec(&["A=1".into()], &[]), Path::new("/shared")).unwrap();
    open_asking(found, &never).unwrap();
}

#[test]
fn sealed_files_are_opened_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().canonicalize().unwrap();
    let volume = shared.join("c-1-config");
    fs::create_dir_all(volume.join("..v1/sub")).unwrap();
    symlink("..v1", volume.join("..data")).unwrap();
    symlink("..data/password", volume.join("password")).unwrap();
    let password = volume.join("..v1/password");
    fs::write(&password, sealed("k", "file:/etc/app/password", b"one\n") + "\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o440)).unwrap();
    fs::write(volume.join("..v1/plain"), "sealed.orders").unwrap();
    fs::write(volume.join("..v1/sub/deep"), sealed("k", "file:/etc/app/sub/deep", b"\xff\0"))
        .unwrap();
    let single = shared.join("c-2-token");
    fs::write(&single, sealed("l", "file:/run/token", b"two")).unwrap();
    let outside = folder.path().join("../outside-of-it");
    let mounts =
        [(volume.as_path(), "/etc/app"), (single.as_path(), "/run/token"), (&outside, "/other")];
    let spec = spec(&[], &mounts);
    let found = find(&spec, &shared).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    let opened = open_asking(found, &released).unwrap();
    assert!(is_sealed(&fs::read(&password).unwrap()), "nothing is written before all are open");
    opened.write_files().unwrap();
    assert_eq!(fs::read(volume.join("password")).unwrap(), b"one\n");
    assert_eq!(fs::metadata(&password).unwrap().mode() & 0o7777, 0o440);
    assert_eq!(fs::read(volume.join("..v1/plain")).unwrap(), b"sealed.orders");
    assert_eq!(fs::read(volume.join("..v1/sub/deep")).unwrap(), b"\xff\0");
    assert_eq!(fs::read(&single).unwrap(), b"two");
    assert!(find(&spec, &shared).unwrap().is_empty());
    assert_eq!(fs::read_dir(volume.join("..v1")).unwrap().count(), 3, "nothing is left beside");
}

#[test]
fn attack_sealed_value_altered_moved_or_of_another_key() {
    let text = sealed("demo/db", "env:PW", VALUE);
    let altered = format!("{}A", &text[..text.len() - 1]);
    assert_ne!(text, altered);
    let words = refused(format!("PW={altered}"), &released);
    assert!(words.contains("env:PW: key demo/db: sealed value does not open"), "{words}");
    let words = refused(format!("PW={text}"), &|_| Ok(key(8)));
    assert!(words.contains("env:PW: key demo/db: sealed value does not open"), "{words}");
    let never = |_: &KeyId| -> Result<ReleasedKey, String> { panic!("a key is asked for") };
    let words = refused(format!("NODE_NAME={text}"), &never);
    assert!(words.ends_with("sealed value is for env:PW, found at env:NODE_NAME"), "{words}");
    let words = refused(format!("PW={}", &text[..60]), &never);
    assert!(words.contains("env:PW: sealed value: found"), "{words}");
    open_asking(find(&spec(&[format!("PW={text}")], &[]), Path::new("/s")).unwrap(), &released)
        .unwrap();
}

#[test]
fn attack_key_that_is_not_released_or_not_symmetric() {
    let entry = || format!("PW={}", sealed("demo/db", "env:PW", VALUE));
    let words = refused(entry(), &|id| Err(format!("refused by the key store: no key {id}")));
    assert_eq!(
        words,
        "open a sealed value: env:PW: key demo/db: refused by the key store: no key demo/db"
    );
    let words = refused(entry(), &|id| ask(None, id));
    assert!(words.contains("key demo/db: the pod's settings name no key service"), "{words}");
    let opaque = |_: &KeyId| Ok(ReleasedKey { kind: KeyKind::Opaque, ..key(7) });
    assert!(refused(entry(), &opaque).ends_with("it is no symmetric key (oct)"));
    let short = |_: &KeyId| {
        Ok(ReleasedKey { kind: KeyKind::Oct, secret: Secret::new(vec![7; 16]).unwrap() })
    };
    assert!(refused(entry(), &short).ends_with("key has 16 bytes, expected 32"));
}

#[test]
fn attack_values_that_no_variable_can_have() {
    for value in [&b"a\0correct horse"[..], b"\xffcorrect horse"] {
        let words = refused(format!("PW={}", sealed("k", "env:PW", value)), &released);
        assert!(words.contains("not UTF-8 without zero bytes"), "{words}");
    }
    let inner = sealed("k", "env:PW", VALUE);
    let words = refused(format!("PW={}", sealed("k", "env:PW", inner.as_bytes())), &released);
    assert!(words.ends_with("what it holds is sealed again"), "{words}");
}

#[test]
fn attack_more_keys_than_one_container_may_ask_for() {
    let entries = |count: usize| -> Vec<String> {
        let one = |n| format!("V{n}={}", sealed(&format!("k{n}"), &format!("env:V{n}"), b"x"));
        (0..count).map(one).collect()
    };
    let opened =
        |count| open_asking(find(&spec(&entries(count), &[]), Path::new("/s")).unwrap(), &released);
    assert_eq!(opened(MAX_KEYS).unwrap().env.0.len(), MAX_KEYS);
    assert!(opened(MAX_KEYS + 1).is_err());
}

#[test]
fn attack_value_in_a_failure_s_text() {
    let entry = format!("PW={}", sealed("k", "env:PW", VALUE));
    let opened =
        open_asking(find(&spec(&[entry], &[]), Path::new("/s")).unwrap(), &released).unwrap();
    let cause = || "exec: PW=correct horse: no such file".to_owned();
    let failures = [
        Failure::Effect { what: "make the process", cause: cause() },
        Failure::Denied { text: cause() },
    ];
    for failure in failures {
        let text = opened.env.hide(failure).to_string();
        assert!(text.ends_with("exec: PW=(opened): no such file"), "{text}");
    }
    assert!(!format!("{opened:?}").contains("correct"), "{opened:?}");
}

/// The host chooses names and contents of an unpinned volume's files.
#[test]
fn attack_sealed_file_in_another_volume_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().canonicalize().unwrap();
    let volume = shared.join("c-1-v");
    fs::create_dir_all(volume.join("..v1")).unwrap();
    fs::write(volume.join("..v1/token"), sealed("k", "file:/secret/token", VALUE)).unwrap();
    let opened = |destination: &str| {
        let found = find(&spec(&[], &[(&volume, destination)]), &shared).unwrap();
        open_asking(found, &released).map(|opened| opened.files.0.len()).map_err(|e| e.to_string())
    };
    assert_eq!(opened("/secret/").unwrap(), 1);
    let words = opened("/open").unwrap_err();
    assert!(words.ends_with("is for file:/secret/token, found at file:/open/token"), "{words}");
}

#[test]
fn attack_link_in_a_copied_folder_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().canonicalize().unwrap();
    let other = shared.join("other");
    fs::write(&other, sealed("k", "file:/v/link", VALUE)).unwrap();
    let volume = shared.join("c-1-v");
    fs::create_dir(&volume).unwrap();
    symlink(&other, volume.join("link")).unwrap();
    symlink(&shared, shared.join("c-2-v")).unwrap();
    let second = shared.join("c-2-v");
    let found = find(&spec(&[], &[(&volume, "/v"), (&second, "/w")]), &shared).unwrap();
    assert!(found.is_empty(), "{found:?}");
    let up = shared.join("c-1-v/../other");
    assert!(find(&spec(&[], &[(&up, "/link")]), &shared).unwrap().is_empty());
}

#[test]
fn attack_sealed_text_put_under_a_container_that_is_made_already() {
    let text = sealed("demo/db", "file:/etc/password", VALUE);
    assert!(check_late(text.as_bytes()).is_err());
    assert!(check_late(VALUE).is_ok());
    let base = Path::new("/run/kata-containers/shared/containers");
    let id = ah_container::ContainerId::parse("c1").unwrap();
    let copied = |name: &str| ah_agent_api::agent::CopyFileRequest {
        path: base.join(name).display().to_string(),
        ..Default::default()
    };
    let is_for = |name: &str| super::super::copy_file::is_for(&copied(name), base, &id);
    assert!(is_for("c1-0011223344556677-late/..2/password"));
    assert!(!is_for("c11-0011223344556677-late/..2/password") && !is_for("c1"));
}

/// While keys are asked for, no lock keeps the host from copying another file in.
#[test]
fn attack_file_put_there_after_the_keys_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().canonicalize().unwrap();
    let volume = shared.join("c-1-v");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("a"), sealed("k", "file:/v/a", VALUE)).unwrap();
    let find = || find(&spec(&[], &[(&volume, "/v")]), &shared).unwrap();
    let keys = fetch(wanted(&find()).unwrap(), &released).unwrap();
    assert_eq!(open(find(), &keys).unwrap().files.0.len(), 1);
    fs::write(volume.join("b"), sealed("other", "file:/v/b", VALUE)).unwrap();
    let words = open(find(), &keys).unwrap_err().to_string();
    assert!(
        words.ends_with("file:/v/b: key other: it came after the keys were asked for"),
        "{words}"
    );
}
