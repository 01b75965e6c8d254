use ah_pod::{Accounts, Layer};
use ah_verity::{VerityInfo, ZERO_SALT};

use super::*;

fn locked(name: &str, root: &str) -> ((String, Platform), LockedImage) {
    let verity = VerityInfo { root_hash: Sha256::of(root), data_blocks: 7, salt: ZERO_SALT };
    let target_digest = Sha256::of("target");
    let facts = ImageFacts {
        reference: name::canonical(&name::parse(name).unwrap(), &target_digest),
        entrypoint: vec!["/bin/\"app\"\n".into()],
        cmd: vec![],
        env: vec!["A=ä=b".into()],
        working_dir: "/srv".into(),
        user: "www".into(),
        volumes: vec!["/data".into()],
        stop_signal: Some("SIGINT".into()),
        accounts: Accounts::parse(
            Some("root:x:0:0::/:\nbig:x:4294967296:-1::/:\n:x:1:1\n"),
            Some("web:x:40:www,alice\nnone:x:3:\n"),
        ),
        layers: vec![Layer { diff_id: Sha256::of("tar"), verity }],
    };
    let image = LockedImage {
        target_digest,
        manifest_digest: Sha256::of("manifest"),
        config_digest: Sha256::of("config"),
        layer_digests: vec![Sha256::of("blob")],
        facts,
    };
    ((name.to_owned(), Platform::LinuxAmd64), image)
}

fn lock() -> LockFile {
    let mut lock = LockFile::default();
    for name in ["web:1", "app:1"] {
        let (key, image) = locked(name, "root");
        lock.insert(key, image).unwrap();
    }
    lock
}

#[test]
fn a_lock_comes_back_as_it_was_and_sorted() {
    let text = lock().to_text();
    assert_eq!(LockFile::parse(&text).unwrap(), lock());
    assert_eq!(LockFile::parse(&text).unwrap().to_text(), text);
    assert!(text.find("app:1").unwrap() < text.find("web:1").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.lock");
    assert!(LockFile::read(&path).unwrap().is_none());
    lock().write(&path).unwrap();
    assert_eq!(LockFile::read(&path).unwrap(), Some(lock()));
}

#[test]
fn a_name_must_be_there_and_of_its_locked_digest() {
    let mut lock = lock();
    let platform = Platform::LinuxAmd64;
    assert_eq!(lock.image("app:1", platform).unwrap(), &locked("app:1", "root").1);
    assert!(matches!(lock.image("app:2", platform), Err(LockError::Missing { .. })));
    let arm = lock.image("app:1", Platform::LinuxArm64);
    assert!(matches!(arm, Err(LockError::Missing { .. })));
    let pinned = format!("app@{}", Sha256::of("other").to_oci());
    let (mut key, image) = locked("app:1", "root");
    key.0.clone_from(&pinned);
    lock.insert(key, image).unwrap();
    assert!(matches!(lock.image(&pinned, platform), Err(LockError::Stale { .. })));
}

#[test]
fn attack_entries_that_contradict_each_other_are_refused() {
    let (key, image) = locked("third:1", "another root");
    assert!(matches!(lock().insert(key, image), Err(LockError::Contradiction { .. })));
    let text = lock().to_text();
    let twice = text.replace("app:1", "web:1").replace("library/app@", "library/web@");
    assert!(matches!(LockFile::parse(&twice), Err(LockError::Contradiction { .. })));
    let elsewhere = text.replacen("library/app@", "evil/app@", 1);
    assert!(matches!(LockFile::parse(&elsewhere), Err(LockError::Contradiction { .. })));
}

#[test]
fn what_is_not_understood_is_refused() {
    let text = lock().to_text();
    let other = text.replacen("version = 1", "version = 2", 1);
    assert!(matches!(LockFile::parse(&other), Err(LockError::Version { what: "version", .. })));
    let other = text.replacen("conversion_version = ", "conversion_version = 9", 1);
    assert!(matches!(LockFile::parse(&other), Err(LockError::Version { .. })));
    for change in ["colour = 1\n", "[[image]]\n"] {
        assert!(matches!(LockFile::parse(&(text.clone() + change)), Err(LockError::Form { .. })));
    }
    let short = text.replacen("root_hash = \"", "root_hash = \"0", 1);
    assert!(matches!(LockFile::parse(&short), Err(LockError::Form { .. })));
}
