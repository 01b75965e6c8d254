//! Rows of keys; knows nothing of what they mean.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::database::{Connection, StoreError};
use crate::kek::Sealed;

const COLUMNS: &str = "name, version, ordinal, kty, ops, enabled, exportable, created_s, updated_s, not_before_s, expires_s,
    policy, immutable, public, kek, nonce, sealed";

/// One version of a key as stored: everything here may have been changed by who can write the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) ordinal: i64,
    pub(crate) kty: String,
    pub(crate) ops: String,
    pub(crate) enabled: i64,
    pub(crate) exportable: i64,
    pub(crate) created_s: i64,
    pub(crate) updated_s: i64,
    /// Below zero: no bound.
    pub(crate) not_before_s: i64,
    /// Below zero: no bound.
    pub(crate) expires_s: i64,
    /// Empty: none.
    pub(crate) policy: String,
    pub(crate) immutable: i64,
    pub(crate) public: String,
    pub(crate) sealed: SealedRow,
}

/// What was sealed, and under which key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedRow {
    pub(crate) kek: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

impl SealedRow {
    pub(crate) fn new(kek: [u8; 8], sealed: Sealed) -> Self {
        Self { kek: kek.to_vec(), nonce: sealed.nonce.to_vec(), ciphertext: sealed.ciphertext }
    }

    /// `None` when the nonce has a wrong length.
    pub(crate) fn sealed(&self) -> Option<Sealed> {
        let nonce = self.nonce.as_slice().try_into().ok()?;
        Some(Sealed { nonce, ciphertext: self.ciphertext.clone() })
    }

    pub(crate) fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kek: row.try_get("kek")?,
            nonce: row.try_get("nonce")?,
            ciphertext: row.try_get("sealed")?,
        })
    }
}

impl KeyRow {
    /// Everything but the sealed bytes, each part with its length, so that no two rows give the same bytes.
    pub(crate) fn context(&self) -> Vec<u8> {
        let numbers = [
            self.ordinal,
            self.enabled,
            self.exportable,
            self.created_s,
            self.updated_s,
            self.not_before_s,
            self.expires_s,
            self.immutable,
        ];
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        let parts = [&self.name, &self.version, &self.kty, &self.ops, &self.policy, &self.public];
        let mut all: Vec<&[u8]> = vec![b"anchorhold-key-store/2", &numbers];
        all.extend(parts.map(|part| part.as_bytes()));
        framed(&all)
    }

    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            ordinal: row.try_get("ordinal")?,
            kty: row.try_get("kty")?,
            ops: row.try_get("ops")?,
            enabled: row.try_get("enabled")?,
            exportable: row.try_get("exportable")?,
            created_s: row.try_get("created_s")?,
            updated_s: row.try_get("updated_s")?,
            not_before_s: row.try_get("not_before_s")?,
            expires_s: row.try_get("expires_s")?,
            policy: row.try_get("policy")?,
            immutable: row.try_get("immutable")?,
            public: row.try_get("public")?,
            sealed: SealedRow::read(row)?,
        })
    }
}

/// Parts with their lengths.
pub(crate) fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Adds a version; false when it is there.
pub(crate) async fn insert(connection: &mut Connection, row: &KeyRow) -> Result<bool, StoreError> {
    let sql = format!(
        "INSERT INTO key_versions ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        ON CONFLICT DO NOTHING"
    );
    let done = sqlx::query(&sql)
        .bind(&row.name)
        .bind(&row.version)
        .bind(row.ordinal)
        .bind(&row.kty)
        .bind(&row.ops)
        .bind(row.enabled)
        .bind(row.exportable)
        .bind(row.created_s)
        .bind(row.updated_s)
        .bind(row.not_before_s)
        .bind(row.expires_s)
        .bind(&row.policy)
        .bind(row.immutable)
        .bind(&row.public)
        .bind(row.sealed.kek.as_slice())
        .bind(row.sealed.nonce.as_slice())
        .bind(row.sealed.ciphertext.as_slice())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts `after` in the place of `before`; false when `before` is no longer there as it was.
pub(crate) async fn update(
    connection: &mut Connection,
    before: &KeyRow,
    after: &KeyRow,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM key_versions WHERE name = $1 AND version = $2 AND nonce = $3";
    let done = sqlx::query(sql)
        .bind(&before.name)
        .bind(&before.version)
        .bind(before.sealed.nonce.as_slice())
        .execute(&mut *connection)
        .await?;
    Ok(done.rows_affected() == 1 && insert(connection, after).await?)
}

/// Removes all versions; false when there is none of this name.
pub(crate) async fn delete(connection: &mut Connection, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM key_versions WHERE name = $1")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Puts `after` in the place of `before` at a secret of the service's own; false when `before` is no longer there as it was.
pub(crate) async fn change_secret(
    connection: &mut Connection,
    name: &str,
    before: &SealedRow,
    after: &SealedRow,
) -> Result<bool, StoreError> {
    let sql = "UPDATE service SET kek = $1, nonce = $2, sealed = $3 WHERE name = $4 AND nonce = $5 AND sealed = $6";
    let done = sqlx::query(sql)
        .bind(after.kek.as_slice())
        .bind(after.nonce.as_slice())
        .bind(after.ciphertext.as_slice())
        .bind(name)
        .bind(before.nonce.as_slice())
        .bind(before.ciphertext.as_slice())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The version that was added last.
pub(crate) async fn latest(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<KeyRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM key_versions WHERE name = $1 ORDER BY ordinal DESC LIMIT 1");
    let row = sqlx::query(&sql).bind(name).fetch_optional(connection).await?;
    Ok(row.as_ref().map(KeyRow::read).transpose()?)
}

/// One version.
pub(crate) async fn version(
    connection: &mut Connection,
    name: &str,
    version: &str,
) -> Result<Option<KeyRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM key_versions WHERE name = $1 AND version = $2");
    let row = sqlx::query(&sql).bind(name).bind(version).fetch_optional(connection).await?;
    Ok(row.as_ref().map(KeyRow::read).transpose()?)
}

/// The latest version of each key whose name comes behind `after`, by name, at most `limit`.
pub(crate) async fn list(
    connection: &mut Connection,
    after: &str,
    limit: i64,
) -> Result<Vec<KeyRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions AS k WHERE name > $1 AND ordinal =
        (SELECT MAX(ordinal) FROM key_versions AS other WHERE other.name = k.name) ORDER BY name LIMIT $2"
    );
    let rows = sqlx::query(&sql).bind(after).bind(limit).fetch_all(connection).await?;
    Ok(rows.iter().map(KeyRow::read).collect::<Result<_, _>>()?)
}

/// The versions of one key behind number `after`, the oldest first, at most `limit`.
pub(crate) async fn versions(
    connection: &mut Connection,
    name: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<KeyRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions WHERE name = $1 AND ordinal > $2 ORDER BY ordinal LIMIT $3"
    );
    let rows = sqlx::query(&sql).bind(name).bind(after).bind(limit).fetch_all(connection).await?;
    Ok(rows.iter().map(KeyRow::read).collect::<Result<_, _>>()?)
}
