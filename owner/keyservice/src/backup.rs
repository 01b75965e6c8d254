//! Backup while the service runs, and restore: one form for both databases, so that it also moves a service from one to the other.
//!
//! Lines of JSON: a header, each row, and an end with their number and the SHA-256 of all lines before it. Keys stay sealed, so a backup
//! without the key-encryption key opens nothing, and the key-encryption key is no part of it.

use std::io::{BufRead, Write};

use ah_digest::Sha256;
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::Digest as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::database::{Connection, Database, Location, StoreError};
use crate::encoding::{decode_base64, encode_base64url};
use crate::environment::{Environment, SystemEnvironment};
use crate::journal::{places, read_tree};
use crate::merkle::{Frontier, leaf_hash};
use crate::service::{KeyService, ServiceError};
use crate::vault::{KekSource, Vault, VaultError};

const FORMAT: &str = "anchorhold-key-backup/1";
/// Longest line, bytes: a key of the largest size with its policy is well below.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// Log entries that are checked at a time.
const CHECKED: i64 = 1000;

#[derive(Clone, Copy)]
enum Column {
    Text(&'static str),
    Whole(&'static str),
    Bytes(&'static str),
}
use Column::{Bytes, Text, Whole};

const TABLES: [(&str, &[Column]); 6] = [
    ("service", &[Text("name"), Bytes("kek"), Bytes("nonce"), Bytes("sealed")]),
    (
        "key_versions",
        &[
            Text("name"),
            Text("version"),
            Whole("ordinal"),
            Text("kty"),
            Text("ops"),
            Whole("enabled"),
            Whole("exportable"),
            Whole("created_s"),
            Whole("updated_s"),
            Whole("not_before_s"),
            Whole("expires_s"),
            Text("policy"),
            Whole("immutable"),
            Text("public"),
            Bytes("kek"),
            Bytes("nonce"),
            Bytes("sealed"),
        ],
    ),
    ("log_entries", &[Whole("seq"), Text("body")]),
    ("log_nodes", &[Whole("level"), Whole("idx"), Bytes("hash")]),
    ("log_tree", &[Whole("id"), Whole("size"), Bytes("peaks")]),
    ("spent_nonces", &[Bytes("nonce"), Whole("expires_s")]),
];

/// Why there is no backup, or it cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The service's database.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The backup's file.
    #[error("backup cannot be read or written")]
    Io(#[from] std::io::Error),
    /// Not a backup, or one that was changed or cut.
    #[error("line {line} of the backup: {what}")]
    Malformed {
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Something is there already.
    #[error(
        "the database is not empty, so nothing is restored into it\nhint: choose another --data folder or database"
    )]
    NotEmpty,
    /// The key-encryption key is not there: a fresh one would open nothing.
    #[error(
        "there is no key-encryption key in {place}\nhint: put the one there that the backup's keys are sealed under"
    )]
    NoKek {
        /// Where it should be.
        place: String,
    },
    /// The log of the backup is not what its tree says.
    #[error(
        "the backup's decision log does not give the root that the backup names: entries were changed"
    )]
    Log,
    /// Keys that do not open.
    #[error(
        "{count} keys of the backup do not open under this key-encryption key; the first: {first}"
    )]
    Keys {
        /// How many.
        count: usize,
        /// What is said of the first.
        first: String,
    },
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Service(error.into())
    }
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Keys, each opened.
    pub keys: usize,
    /// Entries of the log.
    pub entries: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Format { name: String, kek: String },
    Row { table: String, values: Map<String, Value> },
    End { rows: u64, sha256: Sha256 },
}

impl KeyService {
    /// Writes all that the service keeps, as it is at one moment, while it goes on; gives the number of rows.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn backup(&self, out: &mut (dyn Write + Send)) -> Result<u64, BackupError> {
        let mut out = Hashing { out, hasher: sha2::Sha256::default() };
        let kek = hex::encode(self.vault().kek_id());
        out.line(&Line::Format { name: FORMAT.to_owned(), kek })?;
        let mut snapshot = self.vault().database().snapshot().await?;
        let mut rows = 0;
        for (table, columns) in TABLES {
            let sql = format!("SELECT {} FROM {table}", names(columns));
            let mut stream = sqlx::query(&sql).fetch(&mut *snapshot);
            while let Some(row) = stream.try_next().await? {
                out.line(&Line::Row { table: table.to_owned(), values: values(&row, columns)? })?;
                rows += 1;
            }
        }
        let sha256 = Sha256::new(out.hasher.clone().finalize().into());
        out.line(&Line::End { rows, sha256 })?;
        out.out.flush()?;
        Ok(rows)
    }

    /// Fills an empty database from a backup, and checks that every key opens and that the log is whole. All of it or nothing.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn restore(
        location: &Location,
        kek: &KekSource,
        input: &mut (dyn BufRead + Send),
    ) -> Result<Restored, BackupError> {
        let database = Database::open(location).await?;
        if !database.is_empty().await? {
            return Err(BackupError::NotEmpty);
        }
        if let KekSource::File(path) = kek
            && !path.try_exists().unwrap_or(false)
        {
            return Err(BackupError::NoKek { place: path.display().to_string() });
        }
        let mut transaction = database.begin().await?;
        read_lines(input, &mut transaction).await?;
        let entries = check_log(&mut transaction).await?;
        transaction.commit().await?;
        let keys = check_keys(database.clone(), kek, &SystemEnvironment).await;
        if keys.is_err() {
            clear(&database).await?;
        }
        database.close().await;
        Ok(Restored { keys: keys?, entries })
    }
}

struct Hashing<'a> {
    out: &'a mut (dyn Write + Send),
    hasher: sha2::Sha256,
}

impl Hashing<'_> {
    fn line(&mut self, line: &Line) -> Result<(), BackupError> {
        let text = serde_json::to_string(line).map_err(std::io::Error::from)? + "\n";
        self.hasher.update(&text);
        Ok(self.out.write_all(text.as_bytes())?)
    }
}

async fn read_lines(
    input: &mut (dyn BufRead + Send),
    connection: &mut Connection,
) -> Result<(), BackupError> {
    let (mut hasher, mut rows, mut number) = (sha2::Sha256::default(), 0, 0);
    loop {
        number += 1;
        let wrong = |what| BackupError::Malformed { line: number, what };
        let mut text = String::new();
        let found = std::io::Read::take(&mut *input, MAX_LINE_BYTES).read_line(&mut text)?;
        if found == 0 {
            return Err(wrong("the end is missing: the backup was cut"));
        }
        let line: Line = serde_json::from_str(&text)
            .map_err(|_| wrong("it is no line of a backup, or too long"))?;
        match line {
            Line::Format { name, .. } if number == 1 && name == FORMAT => {}
            _ if number == 1 => {
                return Err(wrong("this is no backup of a version that this program reads"));
            }
            Line::Row { table, values } => {
                insert(connection, &table, &values)
                    .await?
                    .ok_or_else(|| wrong("unknown table or column"))?;
                rows += 1;
            }
            Line::End { rows: expected, sha256 } => {
                let found = Sha256::new(hasher.finalize().into());
                let whole = expected == rows && sha256 == found;
                return if whole { Ok(()) } else { Err(wrong("lines before it were changed")) };
            }
            Line::Format { .. } => return Err(wrong("a second beginning")),
        }
        hasher.update(&text);
    }
}

fn names(columns: &[Column]) -> String {
    let names = columns.iter().map(|column| match column {
        Text(name) | Whole(name) | Bytes(name) => *name,
    });
    names.collect::<Vec<_>>().join(", ")
}

fn values(row: &AnyRow, columns: &[Column]) -> Result<Map<String, Value>, sqlx::Error> {
    let value = |column: &Column| {
        Ok(match column {
            Text(name) => ((*name).to_owned(), row.try_get::<String, _>(*name)?.into()),
            Whole(name) => ((*name).to_owned(), row.try_get::<i64, _>(*name)?.into()),
            Bytes(name) => {
                ((*name).to_owned(), encode_base64url(row.try_get::<Vec<u8>, _>(*name)?).into())
            }
        })
    };
    columns.iter().map(value).collect()
}

/// `None` for a table or column that is not ours.
async fn insert(
    connection: &mut Connection,
    table: &str,
    values: &Map<String, Value>,
) -> Result<Option<()>, StoreError> {
    let Some((table, columns)) = TABLES.into_iter().find(|(name, _)| *name == table) else {
        return Ok(None);
    };
    let sql =
        format!("INSERT INTO {table} ({}) VALUES {}", names(columns), places(1, columns.len()));
    let mut query = sqlx::query(&sql);
    for column in columns {
        let known = match column {
            Text(name) => values.get(*name).and_then(Value::as_str).map(|text| query.bind(text)),
            Whole(name) => {
                values.get(*name).and_then(Value::as_i64).map(|number| query.bind(number))
            }
            Bytes(name) => {
                let bytes = values.get(*name).and_then(Value::as_str).and_then(decode_base64);
                bytes.map(|bytes| query.bind(bytes))
            }
        };
        let Some(bound) = known else { return Ok(None) };
        query = bound;
    }
    if values.len() != columns.len() {
        return Ok(None);
    }
    query.execute(connection).await?;
    Ok(Some(()))
}

/// Entries, number for number, give the tree that came with them.
async fn check_log(connection: &mut Connection) -> Result<u64, BackupError> {
    let expected = read_tree(connection, "").await?;
    let mut tree = Frontier::default();
    loop {
        let sql = "SELECT seq, body FROM log_entries WHERE seq >= $1 ORDER BY seq LIMIT $2";
        let start = i64::try_from(tree.size()).map_err(|_| BackupError::Log)?;
        let rows = sqlx::query(sql).bind(start).bind(CHECKED).fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let (seq, body): (i64, String) = (row.try_get("seq")?, row.try_get("body")?);
            if u64::try_from(seq) != Ok(tree.size()) {
                return Err(BackupError::Log);
            }
            tree.push(leaf_hash(body.as_bytes()));
        }
    }
    if tree == expected { Ok(tree.size()) } else { Err(BackupError::Log) }
}

async fn check_keys(
    database: Database,
    kek: &KekSource,
    environment: &dyn Environment,
) -> Result<usize, BackupError> {
    let vault = Vault::open(database, kek, environment).await.map_err(|error| match error {
        VaultError::KekMissing { path: place } => BackupError::NoKek { place },
        other => ServiceError::from(other).into(),
    })?;
    let keys = vault.list("", u32::MAX).await.map_err(ServiceError::from)?;
    // of a key whose latest version opens, the older ones as well
    let mut bad = Vec::new();
    for key in &keys {
        match key {
            Ok(info) => {
                let versions = vault.versions(&info.id, 0, u32::MAX).await;
                let versions = versions.map_err(ServiceError::from)?;
                bad.extend(
                    versions.into_iter().filter_map(Result::err).map(|error| error.to_string()),
                );
            }
            Err(error) => bad.push(error.to_string()),
        }
    }
    match bad.first() {
        None => Ok(keys.len()),
        Some(first) => Err(BackupError::Keys { count: bad.len(), first: first.clone() }),
    }
}

async fn clear(database: &Database) -> Result<(), BackupError> {
    let mut transaction = database.begin().await?;
    for (table, _) in TABLES {
        sqlx::query(&format!("DELETE FROM {table}")).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
