use super::*;
use crate::database::Location;
use crate::environment::SystemEnvironment as System;
use crate::files::private_dir;
use ah_release_api::policy::{PodFacts, TeeKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const DATABASE: &str = "keys.sqlite3";
const KEK: &str = "kek";

fn rule(seed: &str) -> Rule {
    let facts = PodFacts {
        tee: TeeKind::SevSnp,
        launch_measurements: vec![ah_digest::Sha384::of(seed)],
        host_data: ah_digest::Sha256::of(seed),
    };
    Rule::parse(&ReleasePolicy::for_pod(&facts).unwrap().to_json(), false).unwrap()
}

fn info(id: &str) -> KeyInfo {
    KeyInfo {
        id: id.parse().unwrap(),
        version: hex::encode([id.as_bytes()[0]; 16]),
        ordinal: 1,
        kty: KeyType::OCT,
        ops: vec!["encrypt".into()],
        attributes: Attributes {
            enabled: true,
            exportable: true,
            created_s: 1_700_000_000,
            updated_s: 1_700_000_000,
            not_before_s: None,
            expires_s: Some(1_900_000_000),
        },
        rule: Some(rule(id)),
        public: Map::new(),
    }
}

async fn try_vault(dir: &Path) -> Result<Vault, VaultError> {
    private_dir(dir).map_err(KekError::from)?;
    let database = Database::open(&Location::Sqlite(dir.join(DATABASE))).await?;
    Vault::open(database, &KekSource::File(dir.join(KEK)), &System).await
}

async fn vault(dir: &Path) -> Vault {
    try_vault(dir).await.unwrap()
}

async fn filled(dir: &Path) -> Vault {
    let vault = vault(dir).await;
    for id in ["a", "b"] {
        let secret = Secret::new(format!("secret of {id}").into_bytes()).unwrap();
        let row = vault.seal(&info(id), &secret, &System).unwrap();
        let mut connection = vault.database().pool().acquire().await.unwrap();
        assert!(rows::insert(&mut connection, &row).await.unwrap());
        assert!(!rows::insert(&mut connection, &row).await.unwrap(), "a version is stored once");
    }
    vault
}

async fn secret(vault: &Vault, id: &str) -> Result<Vec<u8>, VaultError> {
    let found = vault.find(&id.parse().unwrap(), None).await?.expect("key is there");
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
        "sealed = (SELECT sealed FROM key_versions WHERE name = 'b')",
        "sealed = (SELECT sealed FROM key_versions WHERE name = 'b'), nonce = (SELECT nonce FROM key_versions WHERE name = 'b')",
        "policy = (SELECT policy FROM key_versions WHERE name = 'b')",
        "policy = policy || ' '",
        "policy = ''",
        "kty = 'opaque'",
        "ops = '[]'",
        "public = '{\"n\":\"AQAB\"}'",
        "enabled = 2",
        "exportable = 0",
        "immutable = 1",
        "ordinal = 2",
        "created_s = created_s + 1",
        "updated_s = updated_s + 1",
        "not_before_s = 0",
        "expires_s = -1",
        "nonce = x'00'",
        "version = '00000000000000000000000000000000'",
    ];
    for set in swaps {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("keys");
        let vault = filled(&dir).await;
        assert_eq!(secret(&vault, "a").await.unwrap(), b"secret of a");
        tamper(&dir, &format!("UPDATE key_versions SET {set} WHERE name = 'a'")).await;
        assert!(matches!(secret(&vault, "a").await, Err(VaultError::Altered { .. })), "{set}");
        assert!(vault.list("", 9).await.unwrap().iter().any(Result::is_err));
        assert_eq!(secret(&vault, "b").await.unwrap(), b"secret of b");
    }
}

/// A key that its owner disabled is enabled again by who can write the database, or takes another's name.
#[tokio::test]
async fn attack_disabled_key_enabled_in_the_database() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let vault = vault(&dir).await;
    let mut info = info("a");
    info.attributes.enabled = false;
    let row = vault.seal(&info, &Secret::new(b"x".to_vec()).unwrap(), &System).unwrap();
    let mut connection = vault.database().pool().acquire().await.unwrap();
    rows::insert(&mut connection, &row).await.unwrap();
    assert!(!vault.find(&info.id, None).await.unwrap().unwrap().info.attributes.enabled);
    tamper(&dir, "UPDATE key_versions SET enabled = 1").await;
    assert!(matches!(secret(&vault, "a").await, Err(VaultError::Altered { .. })));
    tamper(&dir, "UPDATE key_versions SET enabled = 0, name = 'c'").await;
    assert!(matches!(secret(&vault, "c").await, Err(VaultError::Altered { .. })));
}

#[tokio::test]
async fn attack_keys_under_another_key_encryption_key() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    filled(&dir).await.database().close().await;
    let kek = dir.join(KEK);
    let kept = std::fs::read(&kek).unwrap();
    std::fs::remove_file(&kek).unwrap();
    let missing = try_vault(&dir).await.err().unwrap();
    assert!(matches!(missing, VaultError::KekMissing { .. }), "{missing}");
    assert!(!kek.exists(), "no fresh key is made beside old rows");
    std::fs::write(&kek, [9; 32]).unwrap();
    std::fs::set_permissions(&kek, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(matches!(try_vault(&dir).await.err(), Some(VaultError::OtherKek { .. })));
    std::fs::write(&kek, kept).unwrap();
    assert_eq!(secret(&vault(&dir).await, "a").await.unwrap(), b"secret of a");
}

#[tokio::test]
async fn attack_kek_or_database_with_wide_permissions() {
    for name in [KEK, DATABASE, "."] {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("keys");
        filled(&dir).await.database().close().await;
        let path = dir.join(name);
        let narrow = std::fs::metadata(&path).unwrap().permissions();
        let mode = narrow.mode() | 0o040;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = try_vault(&dir).await.err().unwrap();
        assert!(error.to_string().contains("hint: chmod"), "{error}");
        std::fs::set_permissions(&path, narrow).unwrap();
        assert!(try_vault(&dir).await.is_ok());
    }
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    filled(&dir).await.database().close().await;
    tamper(&dir, "UPDATE anchorhold_schema SET version = 3").await;
    let error = try_vault(&dir).await.err();
    assert!(matches!(error, Some(VaultError::Store(StoreError::Schema { found: 3 }))), "{error:?}");
}

/// What version 1 of this program wrote: its keys and its identity stay.
#[tokio::test]
async fn keys_of_schema_version_1_are_taken_over() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let first = vault(&dir).await;
    let identity = first.identity().public();
    let policy = rule("a").text;
    let sealed = |name: &str, policy: &str| {
        let aad = version_1_context(name, "oct", policy, 1_700_000_000);
        first.kek.seal(b"secret of old", &aad, &System).unwrap()
    };
    let make = "CREATE TABLE keys (id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, policy TEXT NOT NULL,
        created_s INTEGER NOT NULL, kek BLOB NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL) STRICT";
    sqlx::query(make).execute(first.database().pool()).await.unwrap();
    let put = async |sealed: crate::kek::Sealed| {
        sqlx::query("INSERT INTO keys VALUES ('demo/old', 'oct', $1, 1700000000, $2, $3, $4)")
            .bind(&policy)
            .bind(first.kek.id().to_vec())
            .bind(sealed.nonce.to_vec())
            .bind(sealed.ciphertext)
            .execute(first.database().pool())
            .await
            .unwrap();
    };
    put(sealed("demo/other", &policy)).await;
    assert!(
        matches!(try_vault(&dir).await.err(), Some(VaultError::Altered { .. })),
        "a row that was moved"
    );
    sqlx::query("DELETE FROM keys").execute(first.database().pool()).await.unwrap();
    put(sealed("demo/old", &policy)).await;
    first.database().close().await;

    let again = vault(&dir).await;
    assert_eq!(again.identity().public(), identity);
    assert_eq!(secret(&again, "demo/old").await.unwrap(), b"secret of old");
    let info = again.find(&"demo/old".parse().unwrap(), None).await.unwrap().unwrap().info;
    assert_eq!((info.kty, info.attributes.created_s), (KeyType::OCT, 1_700_000_000));
    assert_eq!(info.rule.unwrap().text, policy);
    assert!(!again.database().has_version_1().await.unwrap());
}

/// A replica whose token hangs, or who does the first steps of its start, must not keep the others from their key.
#[tokio::test]
async fn a_key_that_is_there_is_opened_while_somebody_else_has_the_turn() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let vault = filled(&dir).await;
    let turn = vault.database().turn().await.unwrap();
    let source = KekSource::File(dir.join(KEK));
    let kek = open_kek(&source, vault.database(), &System).await.unwrap();
    assert_eq!(kek.id(), vault.kek_id());
    turn.rollback().await.unwrap();
}
