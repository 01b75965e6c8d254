//! Keys at rest: each sealed under the key-encryption key, bound to its id, kind, policy and date.
//!
//! The adversary may write the database file. Changing any column of a row, or moving a column to another row, makes the row unusable.
//! What this cannot show is a row that was deleted, or replaced by an older one of the same id.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ah_release_api::policy::PolicyError;
use ah_release_api::{KeyId, KeyKind, ReleasePolicy, Secret, Seed, ServiceKey};
use zeroize::Zeroizing;

use crate::environment::{Environment, random32};
use crate::files::private_dir;
use crate::kek::{Kek, KekError};
use crate::store::{KeyRow, SealedRow, Store, StoreError};

const DATABASE: &str = "keys.sqlite3";
const KEK: &str = "key-encryption-key";
const IDENTITY: &str = "identity";

/// Why keys cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key-encryption key.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// Keys are there, and what they are sealed under is not: a fresh key would open none of them.
    #[error(
        "{path} is missing, but the key database beside it is not empty\nhint: put the file back, or move the database away to begin anew"
    )]
    KekMissing {
        /// Where it should be.
        path: String,
    },
    /// The row is sealed under another key-encryption key.
    #[error(
        "{what} is sealed under another key-encryption key: found {found}, expected {expected}"
    )]
    OtherKek {
        /// Which row.
        what: String,
        /// Id of the key in the row, hex.
        found: String,
        /// Id of the key at hand, hex.
        expected: String,
    },
    /// Something of the row was changed outside of this program.
    #[error(
        "{what} was altered in the database: it is not what was stored under this id and policy"
    )]
    Altered {
        /// Which row.
        what: String,
    },
    /// Import of an id that is there.
    #[error("key {0} exists already\nhint: delete it first")]
    Exists(KeyId),
    /// The clock stands before 1970.
    #[error("the clock stands before the year 1970")]
    Clock,
}

/// A key as it is listed: all but its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// What kind of bytes it is.
    pub kind: KeyKind,
    /// Under which claims it is released.
    pub policy: ReleasePolicy,
    /// When it was imported, whole seconds.
    pub created: SystemTime,
}

/// A key with its bytes.
pub(crate) struct StoredKey {
    pub(crate) info: KeyInfo,
    pub(crate) secret: Secret,
}

pub(crate) struct Vault {
    store: Store,
    kek: Kek,
    identity: ServiceKey,
}

impl Vault {
    pub(crate) async fn open(
        dir: &Path,
        environment: &dyn Environment,
    ) -> Result<Self, VaultError> {
        private_dir(dir).map_err(KekError::from)?;
        let store = Store::open(&dir.join(DATABASE)).await?;
        let kek = open_kek(&dir.join(KEK), &store, environment).await?;
        let identity = open_identity(&store, &kek, environment).await?;
        Ok(Self { store, kek, identity })
    }

    /// The key pair by which guests know this service.
    pub(crate) fn identity(&self) -> &ServiceKey {
        &self.identity
    }

    pub(crate) async fn import(
        &self,
        info: &KeyInfo,
        secret: &Secret,
        replace: bool,
        environment: &dyn Environment,
    ) -> Result<(), VaultError> {
        let created_s = info
            .created
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|age| i64::try_from(age.as_secs()).ok())
            .ok_or(VaultError::Clock)?;
        let policy = info.policy.to_json();
        let aad = context(info.id.as_str(), info.kind.name(), &policy, created_s);
        let sealed = self.kek.seal(secret.as_bytes(), &aad, environment)?;
        let row = KeyRow {
            id: info.id.to_string(),
            kind: info.kind.name().to_owned(),
            policy,
            created_s,
            sealed: SealedRow::new(self.kek.id(), sealed),
        };
        let written = match replace {
            true => self.store.replace(&row).await?,
            false => self.store.insert(&row).await?,
        };
        if written { Ok(()) } else { Err(VaultError::Exists(info.id.clone())) }
    }

    pub(crate) async fn find(&self, id: &KeyId) -> Result<Option<StoredKey>, VaultError> {
        match self.store.find(id.as_str()).await? {
            Some(row) => self.open_row(&row).map(Some),
            None => Ok(None),
        }
    }

    /// Every key, each opened to see that it is what was stored.
    pub(crate) async fn list(&self) -> Result<Vec<Result<KeyInfo, VaultError>>, VaultError> {
        let rows = self.store.list().await?;
        Ok(rows.iter().map(|row| self.open_row(row).map(|key| key.info)).collect())
    }

    pub(crate) async fn delete(&self, id: &KeyId) -> Result<bool, VaultError> {
        Ok(self.store.delete(id.as_str()).await?)
    }

    pub(crate) async fn close(&self) {
        self.store.close().await;
    }

    /// The policy is read only after the seal has proven that it is the one that was stored.
    fn open_row(&self, row: &KeyRow) -> Result<StoredKey, VaultError> {
        let what = || format!("key {:?}", row.id);
        let altered = || VaultError::Altered { what: what() };
        let aad = context(&row.id, &row.kind, &row.policy, row.created_s);
        let mut bytes = open_sealed(&self.kek, &row.sealed, &aad, &what)?;
        let kind = [KeyKind::Oct, KeyKind::Opaque].into_iter().find(|kind| kind.name() == row.kind);
        let age = u64::try_from(row.created_s).map_err(|_| altered())?;
        let info = KeyInfo {
            id: row.id.parse().map_err(|_| altered())?,
            kind: kind.ok_or_else(altered)?,
            policy: ReleasePolicy::parse(&row.policy).map_err(|_: PolicyError| altered())?,
            created: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(age))
                .ok_or_else(altered)?,
        };
        let secret = Secret::new(std::mem::take(&mut *bytes)).map_err(|_| altered())?;
        Ok(StoredKey { info, secret })
    }
}

async fn open_kek(
    path: &Path,
    store: &Store,
    environment: &dyn Environment,
) -> Result<Kek, VaultError> {
    if !path.try_exists().unwrap_or(true) {
        if !store.is_empty().await? {
            return Err(VaultError::KekMissing { path: path.display().to_string() });
        }
        Kek::make(path, environment)?;
    }
    Ok(Kek::read(path)?)
}

async fn open_identity(
    store: &Store,
    kek: &Kek,
    environment: &dyn Environment,
) -> Result<ServiceKey, VaultError> {
    let what = || "the service's own key".to_owned();
    let aad = context(IDENTITY, "service", "", 0);
    if store.service_secret(IDENTITY).await?.is_none() {
        let seed = random32(environment).map_err(KekError::from)?;
        let sealed = SealedRow::new(kek.id(), kek.seal(seed.as_slice(), &aad, environment)?);
        store.keep_service_secret(IDENTITY, &sealed).await?;
    }
    let altered = || VaultError::Altered { what: what() };
    let row = store.service_secret(IDENTITY).await?.ok_or_else(altered)?;
    let seed = open_sealed(kek, &row, &aad, &what)?;
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| altered())?;
    Ok(ServiceKey::from_seed(&Seed::new(*seed)))
}

fn open_sealed(
    kek: &Kek,
    row: &SealedRow,
    aad: &[u8],
    what: &dyn Fn() -> String,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    if row.kek != kek.id() {
        let hex = |bytes: &[u8]| bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        return Err(VaultError::OtherKek {
            what: what(),
            found: hex(&row.kek),
            expected: hex(&kek.id()),
        });
    }
    row.sealed()
        .and_then(|sealed| kek.open(&sealed, aad))
        .ok_or_else(|| VaultError::Altered { what: what() })
}

/// What a sealed key is bound to: each part with its length, so that no two rows give the same bytes.
fn context(id: &str, kind: &str, policy: &str, created_s: i64) -> Vec<u8> {
    let created = created_s.to_be_bytes();
    let parts: [&[u8]; 5] =
        [b"anchorhold-key-store/1", id.as_bytes(), kind.as_bytes(), policy.as_bytes(), &created];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
