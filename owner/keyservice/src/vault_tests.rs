use super::*;
use crate::environment::SystemEnvironment as System;
use ah_release_api::policy::{PodFacts, TeeKind};
use std::os::unix::fs::MetadataExt as _;

fn policy(seed: &str) -> ReleasePolicy {
    ReleasePolicy::for_pod(&PodFacts {
        tee: TeeKind::SevSnp,
        launch_measurements: vec![ah_digest::Sha384::of(seed)],
        host_data: ah_digest::Sha256::of(seed),
    })
    .unwrap()
}

fn info(id: &str) -> KeyInfo {
    KeyInfo {
        id: id.parse().unwrap(),
        kind: KeyKind::Oct,
        policy: policy(id),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

async fn vault(dir: &Path) -> Vault {
    Vault::open(dir, &System).await.unwrap()
}

async fn filled(dir: &Path) -> Vault {
    let vault = vault(dir).await;
    for id in ["a", "b"] {
        let secret = Secret::new(format!("secret of {id}").into_bytes()).unwrap();
        vault.import(&info(id), &secret, false, &System).await.unwrap();
    }
    vault
}

async fn secret(vault: &Vault, id: &str) -> Result<Vec<u8>, VaultError> {
    let found = vault.find(&id.parse().unwrap()).await?.expect("key is there");
    Ok(found.secret.as_bytes().to_vec())
}

/// Plays who can write the database file.
async fn tamper(dir: &Path, sql: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(DATABASE));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let done = sqlx::query(sql).execute(&pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{sql}");
    pool.close().await;
}

#[tokio::test]
async fn keys_outlive_the_process() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let first = filled(&dir).await;
    let identity = first.identity().public();
    first.close().await;
    let again = vault(&dir).await;
    assert_eq!(again.identity().public(), identity);
    assert_eq!(secret(&again, "a").await.unwrap(), b"secret of a");
    let listed: Vec<_> = again.list().await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(listed, [info("a"), info("b")]);
    assert!(again.delete(&"a".parse().unwrap()).await.unwrap());
    assert!(!again.delete(&"a".parse().unwrap()).await.unwrap());
    assert!(again.find(&"a".parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_id_is_imported_once_unless_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let vault = filled(dir.path()).await;
    let other = Secret::new(b"other".to_vec()).unwrap();
    let refused = vault.import(&info("a"), &other, false, &System).await;
    assert!(matches!(refused, Err(VaultError::Exists(id)) if id.as_str() == "a"));
    assert_eq!(secret(&vault, "a").await.unwrap(), b"secret of a");
    vault.import(&info("a"), &other, true, &System).await.unwrap();
    assert_eq!(secret(&vault, "a").await.unwrap(), b"other");
}

#[tokio::test]
async fn files_are_private_and_hold_no_plain_secret() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let _vault = filled(&dir).await;
    assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{path:?}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"secret of"), "{path:?}");
    }
}

#[tokio::test]
async fn attack_row_swapped_in_the_database() {
    let swaps = [
        "UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE id = 'b') WHERE id = 'a'",
        "UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE id = 'b'),
                         nonce = (SELECT nonce FROM keys WHERE id = 'b') WHERE id = 'a'",
        "UPDATE keys SET policy = (SELECT policy FROM keys WHERE id = 'b') WHERE id = 'a'",
        "UPDATE keys SET policy = policy || ' ' WHERE id = 'a'",
        "UPDATE keys SET kind = 'opaque' WHERE id = 'a'",
        "UPDATE keys SET created_s = created_s + 1 WHERE id = 'a'",
        "UPDATE keys SET nonce = x'00' WHERE id = 'a'",
        "UPDATE keys SET id = CASE id WHEN 'a' THEN 'c' ELSE 'a' END",
    ];
    for sql in swaps {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("keys");
        let vault = filled(&dir).await;
        assert_eq!(secret(&vault, "a").await.unwrap(), b"secret of a");
        tamper(&dir, sql).await;
        assert!(matches!(secret(&vault, "a").await, Err(VaultError::Altered { .. })), "{sql}");
        assert!(vault.list().await.unwrap().iter().any(Result::is_err));
    }
}

#[tokio::test]
async fn attack_keys_under_another_key_encryption_key() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    filled(&dir).await.close().await;
    let kek = dir.join(KEK);
    let kept = std::fs::read(&kek).unwrap();
    std::fs::remove_file(&kek).unwrap();
    let missing = Vault::open(&dir, &System).await.err().unwrap();
    assert!(matches!(missing, VaultError::KekMissing { .. }), "{missing}");
    assert!(!kek.exists(), "no fresh key is made beside old rows");
    std::fs::write(&kek, [9; 32]).unwrap();
    std::fs::set_permissions(&kek, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(matches!(Vault::open(&dir, &System).await.err(), Some(VaultError::OtherKek { .. })));
    std::fs::write(&kek, kept).unwrap();
    assert_eq!(secret(&vault(&dir).await, "a").await.unwrap(), b"secret of a");
}

#[tokio::test]
async fn attack_kek_or_database_with_wide_permissions() {
    for name in [KEK, DATABASE, "."] {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("keys");
        filled(&dir).await.close().await;
        let path = dir.join(name);
        let narrow = std::fs::metadata(&path).unwrap().permissions();
        let mode = narrow.mode() | 0o040;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Vault::open(&dir, &System).await.err().unwrap();
        assert!(error.to_string().contains("hint: chmod"), "{error}");
        std::fs::set_permissions(&path, narrow).unwrap();
        assert!(Vault::open(&dir, &System).await.is_ok());
    }
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    filled(&dir).await.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(DATABASE));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("PRAGMA user_version = 2").execute(&pool).await.unwrap();
    pool.close().await;
    let error = Vault::open(&dir, &System).await.err();
    assert!(matches!(error, Some(VaultError::Store(StoreError::Schema { found: 2 }))));
}
