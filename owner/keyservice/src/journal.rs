//! The one writer: changes of keys and entries of the log, many of them in one transaction, durable before anybody is answered.
//!
//! A caller that goes away does not take its change along: the writer is a task of its own. A key that changes and the entry that says so
//! are one transaction, so neither is ever there alone.

use ah_digest::Sha256;
use sqlx::Row as _;
use tokio::sync::{mpsc, oneshot};

use crate::database::{Connection, Database, StoreError, signed, unsigned};
use crate::log::LogEntry;
use crate::merkle::{Frontier, Place, leaf_hash};
use crate::rows::{self, KeyRow, SealedRow};

/// Most orders that wait.
const QUEUE: usize = 1024;
/// Most orders of one transaction.
const MAX_BATCH: usize = 128;
/// How often used challenges that have expired are forgotten, seconds.
const FORGET_EVERY_S: i64 = 10;
/// Rows of one statement: SQLite and PostgreSQL both take more parameters than three times that.
const ROWS: usize = 256;

/// What is to be changed beside the log.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Adds the first version of a key; does not apply when there is one of this name.
    AddKey(Box<KeyRow>),
    /// Adds a version; does not apply when that one is there.
    AddVersion(Box<KeyRow>),
    /// Removes all versions of this name and adds one.
    ReplaceKey(Box<KeyRow>),
    /// Changes a version; does not apply when it is no longer as it was.
    UpdateVersion { before: Box<KeyRow>, after: Box<KeyRow> },
    /// Removes all versions; does not apply when there is none.
    DeleteKey(String),
    /// Changes a secret of the service's own; does not apply when it is no longer as it was.
    Secret { name: String, before: SealedRow, after: SealedRow },
    /// Uses a challenge up; does not apply when it was used before.
    Spend { nonce: [u8; 32], expires_s: i64, now_s: i64 },
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The change is made and its entry is in the log.
    Done,
    /// The change did not apply; nothing was written.
    NotApplied,
}

struct Order {
    change: Change,
    body: Option<String>,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Takes orders to the writer.
pub(crate) struct Journal {
    orders: mpsc::Sender<Order>,
}

impl Journal {
    /// Starts the writer on this runtime; it ends when the journal is dropped and all orders are done.
    pub(crate) fn start(database: Database) -> Self {
        let (orders, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Writer { database, seen: Frontier::default(), forget_at_s: 0 }.run(queue));
        Self { orders }
    }

    /// Makes a change and writes its entry; both are durable when this returns.
    pub(crate) async fn write(
        &self,
        change: Change,
        entry: Option<&LogEntry>,
    ) -> Result<Outcome, StoreError> {
        let body = entry
            .map(serde_json::to_string)
            .transpose()
            .map_err(|_| StoreError::Damaged("an entry has no JSON form"))?;
        let (answer, done) = oneshot::channel();
        let order = Order { change, body, answer };
        self.orders.send(order).await.map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)?
    }
}

struct Writer {
    database: Database,
    /// The longest log that this process has seen.
    seen: Frontier,
    /// When expired challenges are forgotten next.
    forget_at_s: i64,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let (orders, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|order| ((order.change, order.body), order.answer)).unzip();
            let outcomes = self.commit(&orders).await;
            for (index, answer) in answers.into_iter().enumerate() {
                let outcome = match &outcomes {
                    Ok(outcomes) => outcomes.get(index).copied().ok_or(StoreError::Closed),
                    Err(error) => Err(error.clone()),
                };
                // Whoever asked may be gone; what was asked is done all the same.
                let _ = answer.send(outcome);
            }
        }
    }

    async fn commit(
        &mut self,
        orders: &[(Change, Option<String>)],
    ) -> Result<Vec<Outcome>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let mut tree = read_tree(&mut transaction, self.database.for_update()).await?;
        self.check_not_rolled_back(&tree)?;
        self.forget(&mut transaction, orders).await?;
        let (mut outcomes, mut entries, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        for (change, body) in orders {
            let applied = apply(&mut transaction, change).await?;
            outcomes.push(if applied { Outcome::Done } else { Outcome::NotApplied });
            if let Some(body) = body.as_ref().filter(|_| applied) {
                entries.push((tree.size(), body.as_str()));
                nodes.extend(tree.push(leaf_hash(body.as_bytes())));
            }
        }
        write_entries(&mut transaction, &entries).await?;
        write_nodes(&mut transaction, &nodes).await?;
        if !entries.is_empty() {
            write_tree(&mut transaction, &tree).await?;
        }
        transaction.commit().await?;
        self.seen = tree;
        Ok(outcomes)
    }

    async fn forget(
        &mut self,
        connection: &mut Connection,
        orders: &[(Change, Option<String>)],
    ) -> Result<(), StoreError> {
        let times = orders.iter().filter_map(|(change, _)| match change {
            Change::Spend { now_s, .. } => Some(*now_s),
            _ => None,
        });
        let Some(now_s) = times.max().filter(|now_s| *now_s >= self.forget_at_s) else {
            return Ok(());
        };
        let sql = "DELETE FROM spent_nonces WHERE expires_s < $1";
        sqlx::query(sql).bind(now_s).execute(connection).await?;
        self.forget_at_s = now_s.saturating_add(FORGET_EVERY_S);
        Ok(())
    }

    fn check_not_rolled_back(&self, found: &Frontier) -> Result<(), StoreError> {
        let shorter = found.size() < self.seen.size();
        let other = found.size() == self.seen.size() && *found != self.seen;
        match shorter || other {
            true => Err(StoreError::RolledBack { found: found.size(), expected: self.seen.size() }),
            false => Ok(()),
        }
    }
}

async fn apply(connection: &mut Connection, change: &Change) -> Result<bool, StoreError> {
    match change {
        Change::None => Ok(true),
        Change::AddKey(row) => {
            let there = rows::latest(&mut *connection, &row.name).await?.is_some();
            Ok(!there && rows::insert(connection, row).await?)
        }
        Change::AddVersion(row) => rows::insert(connection, row).await,
        Change::ReplaceKey(row) => {
            rows::delete(&mut *connection, &row.name).await?;
            rows::insert(connection, row).await
        }
        Change::UpdateVersion { before, after } => rows::update(connection, before, after).await,
        Change::DeleteKey(name) => rows::delete(connection, name).await,
        Change::Secret { name, before, after } => {
            rows::change_secret(connection, name, before, after).await
        }
        Change::Spend { nonce, expires_s, .. } => {
            let sql = "INSERT INTO spent_nonces (nonce, expires_s) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let done = sqlx::query(sql)
                .bind(nonce.as_slice())
                .bind(*expires_s)
                .execute(connection)
                .await?;
            Ok(done.rows_affected() == 1)
        }
    }
}

/// The tree as it stands; an empty one where nothing was ever logged.
pub(crate) async fn read_tree(
    connection: &mut Connection,
    for_update: &str,
) -> Result<Frontier, StoreError> {
    let sql = "INSERT INTO log_tree (id, size, peaks) VALUES (1, 0, $1) ON CONFLICT DO NOTHING";
    if !for_update.is_empty() {
        // A row that is not there cannot be locked.
        sqlx::query(sql).bind(Vec::<u8>::new()).execute(&mut *connection).await?;
    }
    let sql = format!("SELECT size, peaks FROM log_tree WHERE id = 1{for_update}");
    let Some(row) = sqlx::query(&sql).fetch_optional(connection).await? else {
        return Ok(Frontier::default());
    };
    let (size, peaks): (i64, Vec<u8>) = (row.try_get("size")?, row.try_get("peaks")?);
    let damaged = || StoreError::Damaged("the tree's peaks do not fit its size");
    let peaks =
        peaks.chunks(32).map(Sha256::try_from).collect::<Result<_, _>>().map_err(|_| damaged())?;
    Frontier::new(unsigned(size)?, peaks).ok_or_else(damaged)
}

async fn write_tree(connection: &mut Connection, tree: &Frontier) -> Result<(), StoreError> {
    let peaks: Vec<u8> = tree.peaks().iter().flat_map(|peak| *peak.as_bytes()).collect();
    let sql = "INSERT INTO log_tree (id, size, peaks) VALUES (1, $1, $2)
        ON CONFLICT (id) DO UPDATE SET size = excluded.size, peaks = excluded.peaks";
    sqlx::query(sql).bind(signed(tree.size())?).bind(peaks).execute(connection).await?;
    Ok(())
}

async fn write_entries(
    connection: &mut Connection,
    entries: &[(u64, &str)],
) -> Result<(), StoreError> {
    for chunk in entries.chunks(ROWS) {
        let sql = format!("INSERT INTO log_entries (seq, body) VALUES {}", places(chunk.len(), 2));
        let mut query = sqlx::query(&sql);
        for (seq, body) in chunk {
            query = query.bind(signed(*seq)?).bind(*body);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_nodes(
    connection: &mut Connection,
    nodes: &[(Place, Sha256)],
) -> Result<(), StoreError> {
    for chunk in nodes.chunks(ROWS) {
        let sql =
            format!("INSERT INTO log_nodes (level, idx, hash) VALUES {}", places(chunk.len(), 3));
        let mut query = sqlx::query(&sql);
        for (place, hash) in chunk {
            query = query
                .bind(i64::from(place.level))
                .bind(signed(place.index)?)
                .bind(hash.as_bytes().as_slice());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub(crate) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> =
            (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
