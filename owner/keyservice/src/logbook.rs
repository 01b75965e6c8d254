//! Reading the decision log: its head, its entries, and proofs about both.

use std::ops::Range;

use ah_digest::Sha256;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::database::{Connection, StoreError, signed, unsigned};
use crate::head::SignedHead;
use crate::journal::read_tree;
use crate::merkle::{consistency_ranges, fold, inclusion_ranges, perfect_subtrees};
use crate::service::{KeyService, ServiceError};

/// Most entries of one answer.
pub const MAX_ENTRIES: u64 = 1000;

/// An entry, as it is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEntry {
    /// Its number, from 0.
    pub seq: u64,
    /// The exact JSON text; its leaf hash is over these bytes.
    pub body: String,
}

/// Shows that an entry is in the log that a head speaks of (RFC 9162 section 2.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The head.
    pub head: SignedHead,
    /// The entry.
    pub entry: StoredEntry,
    /// Sibling hashes, from the leaf up.
    pub path: Vec<Sha256>,
}

/// Shows that the log of a head begins with an earlier, shorter one (RFC 9162 section 2.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// Entries of the earlier log.
    pub old_size: u64,
    /// The head.
    pub head: SignedHead,
    /// Hashes, as section 2.1.4.1 orders them.
    pub path: Vec<Sha256>,
}

impl KeyService {
    /// The log as it stands, signed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn head(&self) -> Result<SignedHead, ServiceError> {
        let mut connection =
            self.vault().database().pool().acquire().await.map_err(StoreError::from)?;
        self.signed_head(&mut connection).await
    }

    async fn signed_head(&self, connection: &mut Connection) -> Result<SignedHead, ServiceError> {
        let tree = read_tree(connection, "").await?;
        Ok(SignedHead::sign(self.log_key(), tree.size(), tree.root(), self.environment().now()))
    }

    /// Entries from number `start` on, at most `limit` and [`MAX_ENTRIES`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn entries(&self, start: u64, limit: u64) -> Result<Vec<StoredEntry>, ServiceError> {
        let mut connection =
            self.vault().database().pool().acquire().await.map_err(StoreError::from)?;
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        Ok(read_entries(&mut connection, start, signed(limit.min(MAX_ENTRIES))?).await?)
    }

    /// Proves that entry `seq` is in the log as it stands.
    ///
    /// # Errors
    /// [`ServiceError::NoEntry`] when there is none.
    pub async fn prove_inclusion(&self, seq: u64) -> Result<InclusionProof, ServiceError> {
        let mut snapshot = self.vault().database().snapshot().await?;
        let head = self.signed_head(&mut snapshot).await?;
        let missing = ServiceError::NoEntry { found: seq, size: head.size };
        if seq >= head.size {
            return Err(missing);
        }
        let entry = read_entries(&mut snapshot, signed(seq)?, 1)
            .await?
            .pop()
            .filter(|entry| entry.seq == seq);
        let path = hashes(&mut snapshot, &inclusion_ranges(seq, head.size)).await?;
        Ok(InclusionProof { head, entry: entry.ok_or(missing)?, path })
    }

    /// Proves that the log as it stands begins with the one that had `old_size` entries.
    ///
    /// # Errors
    /// [`ServiceError::NoEntry`] when it never had as many.
    pub async fn prove_consistency(&self, old_size: u64) -> Result<ConsistencyProof, ServiceError> {
        let mut snapshot = self.vault().database().snapshot().await?;
        let head = self.signed_head(&mut snapshot).await?;
        if old_size > head.size {
            return Err(ServiceError::NoEntry { found: old_size, size: head.size });
        }
        let path = hashes(&mut snapshot, &consistency_ranges(old_size, head.size)).await?;
        Ok(ConsistencyProof { old_size, head, path })
    }
}

async fn read_entries(
    connection: &mut Connection,
    start: i64,
    limit: i64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let sql = "SELECT seq, body FROM log_entries WHERE seq >= $1 ORDER BY seq LIMIT $2";
    let rows = sqlx::query(sql).bind(start).bind(limit).fetch_all(connection).await?;
    let entry = |row: &sqlx::any::AnyRow| {
        Ok(StoredEntry { seq: unsigned(row.try_get("seq")?)?, body: row.try_get("body")? })
    };
    rows.iter().map(entry).collect()
}

/// The root over each range of leaves.
async fn hashes(
    connection: &mut Connection,
    ranges: &[Range<u64>],
) -> Result<Vec<Sha256>, StoreError> {
    let mut roots = Vec::new();
    for range in ranges {
        let mut peaks = Vec::new();
        for place in perfect_subtrees(range.clone()) {
            let sql = "SELECT hash FROM log_nodes WHERE level = $1 AND idx = $2";
            let query = sqlx::query(sql).bind(i64::from(place.level)).bind(signed(place.index)?);
            let row = query.fetch_optional(&mut *connection).await?;
            let bytes: Vec<u8> =
                row.ok_or(StoreError::Damaged("a tree node is missing"))?.try_get("hash")?;
            let hash = Sha256::try_from(bytes.as_slice());
            peaks.push(hash.map_err(|_| StoreError::Damaged("a tree node is no hash"))?);
        }
        roots.push(fold(&peaks));
    }
    Ok(roots)
}
