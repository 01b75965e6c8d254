//! What version 1 of the tables held, taken over into today's.

use sqlx::Row as _;

use crate::database::{Database, StoreError};
use crate::environment::Environment;
use crate::kek::Kek;
use crate::rows::{self, KeyRow, SealedRow, framed};
use crate::vault::{VaultError, new_version, open_sealed};

/// What rows of schema version 1, and secrets of the service, are bound to.
pub(crate) fn version_1_context(id: &str, kind: &str, policy: &str, created_s: i64) -> Vec<u8> {
    let created = created_s.to_be_bytes();
    framed(&[
        b"anchorhold-key-store/1",
        id.as_bytes(),
        kind.as_bytes(),
        policy.as_bytes(),
        &created,
    ])
}

/// Moves the keys of schema version 1 into today's table. All of them or none.
pub(crate) async fn upgrade_from_version_1(
    database: &Database,
    kek: &Kek,
    environment: &dyn Environment,
) -> Result<(), VaultError> {
    if !database.has_version_1().await? {
        return Ok(());
    }
    let mut transaction = database.begin().await?;
    let sql = "SELECT id, kind, policy, created_s, kek, nonce, sealed FROM keys";
    let old = sqlx::query(sql).fetch_all(&mut *transaction).await.map_err(StoreError::from)?;
    for row in &old {
        let row = upgraded(row, kek, environment)?;
        rows::insert(&mut transaction, &row).await?;
    }
    sqlx::query("DROP TABLE keys").execute(&mut *transaction).await.map_err(StoreError::from)?;
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(())
}

fn upgraded(
    old: &sqlx::any::AnyRow,
    kek: &Kek,
    environment: &dyn Environment,
) -> Result<KeyRow, VaultError> {
    let text = |name: &str| old.try_get::<String, _>(name).map_err(StoreError::from);
    let (name, kind, policy) = (text("id")?, text("kind")?, text("policy")?);
    let created_s: i64 = old.try_get("created_s").map_err(StoreError::from)?;
    let what = || format!("key {name:?}");
    let aad = version_1_context(&name, &kind, &policy, created_s);
    let secret = open_sealed(kek, &SealedRow::read(old).map_err(StoreError::from)?, &aad, &what)?;
    let mut row = KeyRow {
        version: new_version(environment)?,
        ordinal: 1,
        ops: "[]".to_owned(),
        kty: kind.clone(),
        enabled: 1,
        exportable: 1,
        created_s,
        updated_s: created_s,
        not_before_s: -1,
        expires_s: -1,
        immutable: 0,
        public: "{}".to_owned(),
        sealed: SealedRow { kek: Vec::new(), nonce: Vec::new(), ciphertext: Vec::new() },
        name: name.clone(),
        policy,
    };
    row.sealed = SealedRow::new(kek.id(), kek.seal(&secret, &row.context(), environment)?);
    Ok(row)
}
