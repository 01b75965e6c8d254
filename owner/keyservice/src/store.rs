//! Rows in SQLite; knows nothing of what they mean.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Executor as _, Row as _};

use crate::files::{FileError, Open, private_file};
use crate::kek::Sealed;

/// Version of the tables, in the database's `user_version`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE keys (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        policy TEXT NOT NULL,
        created_s INTEGER NOT NULL,
        kek BLOB NOT NULL,
        nonce BLOB NOT NULL,
        sealed BLOB NOT NULL
    ) STRICT;
    CREATE TABLE service (
        name TEXT NOT NULL PRIMARY KEY,
        kek BLOB NOT NULL,
        nonce BLOB NOT NULL,
        sealed BLOB NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;";

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// SQLite.
    #[error("key database failed")]
    Database(#[from] sqlx::Error),
    /// Made by another version of this program.
    #[error("key database has schema version {found}, expected {SCHEMA_VERSION}")]
    Schema {
        /// Version found.
        found: i64,
    },
}

/// One key's row, as stored: everything here may have been changed by who can write the file.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) policy: String,
    pub(crate) created_s: i64,
    pub(crate) sealed: SealedRow,
}

/// What was sealed, and under which key-encryption key.
#[derive(Debug, Clone)]
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

    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kek: row.try_get("kek")?,
            nonce: row.try_get("nonce")?,
            ciphertext: row.try_get("sealed")?,
        })
    }
}

pub(crate) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database; makes it, for its owner's eyes only, if it is not there.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        drop(private_file(path, Open::Append)?);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("secure_delete", "on")
            .pragma("trusted_schema", "off");
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let found: i64 =
            sqlx::query("PRAGMA user_version").fetch_one(&mut *transaction).await?.try_get(0)?;
        match found {
            0 => {
                transaction.execute(SCHEMA).await?;
            }
            SCHEMA_VERSION => {}
            found => return Err(StoreError::Schema { found }),
        }
        Ok(transaction.commit().await?)
    }

    /// Whether anything was ever sealed here.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM keys) + (SELECT count(*) FROM service)";
        let rows: i64 = sqlx::query(sql).fetch_one(&self.pool).await?.try_get(0)?;
        Ok(rows == 0)
    }

    /// Adds a key; false when one of this id is there.
    pub(crate) async fn insert(&self, row: &KeyRow) -> Result<bool, StoreError> {
        self.write("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", row).await
    }

    /// Adds a key in place of one of the same id.
    pub(crate) async fn replace(&self, row: &KeyRow) -> Result<bool, StoreError> {
        self.write("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", row).await
    }

    async fn write(&self, sql: &'static str, row: &KeyRow) -> Result<bool, StoreError> {
        let done = sqlx::query(sql)
            .bind(&row.id)
            .bind(&row.kind)
            .bind(&row.policy)
            .bind(row.created_s)
            .bind(&row.sealed.kek)
            .bind(&row.sealed.nonce)
            .bind(&row.sealed.ciphertext)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM keys WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(read_key).transpose()?)
    }

    pub(crate) async fn list(&self) -> Result<Vec<KeyRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM keys ORDER BY id").fetch_all(&self.pool).await?;
        Ok(rows.iter().map(read_key).collect::<Result<_, _>>()?)
    }

    /// Removes a key; false when there is none of this id.
    pub(crate) async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let done =
            sqlx::query("DELETE FROM keys WHERE id = ?").bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// A secret of the service itself.
    pub(crate) async fn service_secret(&self, name: &str) -> Result<Option<SealedRow>, StoreError> {
        let row = sqlx::query("SELECT kek, nonce, sealed FROM service WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(SealedRow::read).transpose()?)
    }

    /// Keeps a secret of the service; the first one stays.
    pub(crate) async fn keep_service_secret(
        &self,
        name: &str,
        sealed: &SealedRow,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT OR IGNORE INTO service VALUES (?, ?, ?, ?)")
            .bind(name)
            .bind(&sealed.kek)
            .bind(&sealed.nonce)
            .bind(&sealed.ciphertext)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

fn read_key(row: &SqliteRow) -> Result<KeyRow, sqlx::Error> {
    Ok(KeyRow {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        policy: row.try_get("policy")?,
        created_s: row.try_get("created_s")?,
        sealed: SealedRow::read(row)?,
    })
}
