//! The database: SQLite in a file, or PostgreSQL by URL; its tables, and their versions.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Row as _, Transaction};

use crate::files::{FileError, Open, private_file};

/// The version of the tables that this program reads and writes.
const SCHEMA_VERSION: i64 = 2;

/// Tables in PostgreSQL's types; SQLite has other names for two of them.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS service (
        name TEXT NOT NULL PRIMARY KEY, kek BYTEA NOT NULL, nonce BYTEA NOT NULL, sealed BYTEA NOT NULL);
    CREATE TABLE key_versions (
        name TEXT COLLATE \"C\" NOT NULL, version TEXT NOT NULL, ordinal BIGINT NOT NULL,
        kty TEXT NOT NULL, ops TEXT NOT NULL, enabled BIGINT NOT NULL, exportable BIGINT NOT NULL,
        created_s BIGINT NOT NULL, updated_s BIGINT NOT NULL, not_before_s BIGINT NOT NULL, expires_s BIGINT NOT NULL,
        policy TEXT NOT NULL, immutable BIGINT NOT NULL, public TEXT NOT NULL,
        kek BYTEA NOT NULL, nonce BYTEA NOT NULL, sealed BYTEA NOT NULL,
        PRIMARY KEY (name, version), UNIQUE (name, ordinal));
    CREATE TABLE log_entries (seq BIGINT NOT NULL PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE log_nodes (level BIGINT NOT NULL, idx BIGINT NOT NULL, hash BYTEA NOT NULL, PRIMARY KEY (level, idx));
    CREATE TABLE log_tree (id BIGINT NOT NULL PRIMARY KEY, size BIGINT NOT NULL, peaks BYTEA NOT NULL);
    CREATE TABLE spent_nonces (nonce BYTEA NOT NULL PRIMARY KEY, expires_s BIGINT NOT NULL);
    INSERT INTO anchorhold_schema (version) VALUES (2)";

/// What makes an answer of SQLite durable, and what a deleted key leaves behind: nothing.
const SQLITE_SETTINGS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
    PRAGMA secure_delete = on; PRAGMA trusted_schema = off;";
const POSTGRES_SETTINGS: &str =
    "SET synchronous_commit = on; SET statement_timeout = '30s'; SET lock_timeout = '20s';";

/// Where keys and log are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, made on first use with mode 0600.
    Sqlite(PathBuf),
    /// `postgres://…`: for several replicas.
    Postgres(String),
}

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Its file.
    #[error(transparent)]
    File(Arc<FileError>),
    /// The database.
    #[error("key database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// Made by another version of this program.
    #[error(
        "key database has schema version {found}, expected {SCHEMA_VERSION}\nhint: use the version of this program that made it"
    )]
    Schema {
        /// Version found.
        found: i64,
    },
    /// A path that is no text.
    #[error("path of the key database is not UTF-8")]
    Path,
    /// The log in the database is not the one that this process wrote to.
    #[error("decision log was rolled back: found {found} entries, expected at least {expected}")]
    RolledBack {
        /// Entries found.
        found: u64,
        /// Entries that this process has seen.
        expected: u64,
    },
    /// Something of the log was altered.
    #[error("decision log in the database is damaged: {0}")]
    Damaged(&'static str),
    /// The service is shutting down.
    #[error("the key service is closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(Arc::new(error))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// Connections to one database.
#[derive(Clone)]
pub(crate) struct Database {
    pool: AnyPool,
    kind: Kind,
}

impl Database {
    /// Opens the database and makes its tables where there are none.
    pub(crate) async fn open(location: &Location) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(install_default_drivers);
        let (kind, url, connections) = match location {
            Location::Sqlite(path) => {
                drop(private_file(path, Open::Append)?);
                (Kind::Sqlite, sqlite_url(path)?, 4)
            }
            Location::Postgres(url) => (Kind::Postgres, url.clone(), 8),
        };
        let settings = if kind == Kind::Sqlite { SQLITE_SETTINGS } else { POSTGRES_SETTINGS };
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(20))
            .after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(settings).await.map(drop) })
            })
            .connect_with(AnyConnectOptions::from_str(&url)?)
            .await?;
        let database = Self { pool, kind };
        database.migrate().await?;
        Ok(database)
    }

    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// A transaction that will write: nobody else writes until it ends.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(match self.kind {
            Kind::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Kind::Postgres => self.pool.begin().await?,
        })
    }

    /// A transaction that sees one state of the database.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(match self.kind {
            Kind::Sqlite => self.pool.begin().await?,
            Kind::Postgres => {
                self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?
            }
        })
    }

    /// What locks a row that is read to be written; SQLite locks the whole file already.
    pub(crate) fn for_update(&self) -> &'static str {
        if self.kind == Kind::Postgres { " FOR UPDATE" } else { "" }
    }

    /// A transaction for what is done once at the first start: replicas that start at once take turns.
    pub(crate) async fn turn(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let mut transaction = self.begin().await?;
        if self.kind == Kind::Postgres {
            transaction.execute("SELECT 1 FROM pg_advisory_xact_lock(4702394)").await?;
        }
        Ok(transaction)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.turn().await?;
        transaction
            .execute(
                self.dialect(
                    "CREATE TABLE IF NOT EXISTS anchorhold_schema (version BIGINT NOT NULL)",
                )
                .as_str(),
            )
            .await?;
        let sql = "SELECT COALESCE(MAX(version), 0) FROM anchorhold_schema";
        match sqlx::query(sql).fetch_one(&mut *transaction).await?.try_get::<i64, _>(0)? {
            0 => {
                transaction.execute(self.dialect(SCHEMA).as_str()).await?;
            }
            SCHEMA_VERSION => {}
            found => return Err(StoreError::Schema { found }),
        }
        Ok(transaction.commit().await?)
    }

    fn dialect(&self, sql: &str) -> String {
        match self.kind {
            Kind::Postgres => sql.to_owned(),
            Kind::Sqlite => sql
                .replace("BIGINT", "INTEGER")
                .replace("BYTEA", "BLOB")
                .replace(" COLLATE \"C\"", "")
                .replace(");", ") STRICT;"),
        }
    }

    /// Whether the tables of schema version 1 are there, which only SQLite ever had.
    pub(crate) async fn has_version_1(&self) -> Result<bool, StoreError> {
        if self.kind == Kind::Postgres {
            return Ok(false);
        }
        let sql = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'keys'";
        Ok(sqlx::query(sql).fetch_one(&self.pool).await?.try_get::<i64, _>(0)? > 0)
    }

    /// Whether anything was ever sealed here.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM key_versions) + (SELECT COUNT(*) FROM service)";
        let rows: i64 = sqlx::query(sql).fetch_one(&self.pool).await?.try_get(0)?;
        Ok(rows == 0 && !self.has_version_1().await?)
    }

    /// Answers whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").fetch_one(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// The path as a URL of sqlx, which decodes percent signs and ends the path at a question mark.
fn sqlite_url(path: &Path) -> Result<String, StoreError> {
    let mut url = String::from("sqlite://");
    for byte in path.to_str().ok_or(StoreError::Path)?.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => url.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url.push_str("?mode=rw");
    Ok(url)
}

/// A whole number of a row that is never below zero.
pub(crate) fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Damaged("a count is below zero"))
}

/// A count for a column.
pub(crate) fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Damaged("a count is too large"))
}

/// What a statement works on: a transaction's connection.
pub(crate) type Connection = AnyConnection;
