//! Keys at rest: each version sealed under the key-encryption key, bound to everything else that its row says.
//!
//! The adversary may write the database. Changing any column of a row, or moving a column to another row, makes the row unusable.
//! What this cannot show is a row that was deleted, or replaced by an older one of the same version; the decision log shows those.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ah_release_api::policy::PolicyError;
use ah_release_api::{KeyId, KeyKind, ReleasePolicy, Secret, Seed, ServiceKey};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::database::{Database, StoreError};
use crate::environment::{Environment, blocking, random32};
use crate::journal::Change;
use crate::kek::{Kek, KekError};
use crate::material::{Family, KeyType, MaterialError};
use crate::rows::{self, KeyRow, SealedRow};
use crate::token_kek::{TokenKey, TokenKeyError};
use crate::upgrade::{upgrade_from_version_1, version_1_context};

const IDENTITY: &str = "identity";

/// Where the key-encryption key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KekSource {
    /// A file of 32 bytes and mode 0600, made on first use.
    File(PathBuf),
    /// An environment variable with 64 hex digits.
    Variable(String),
    /// A key in a token, made on first use; it never leaves it.
    Token(TokenKey),
}

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
        "{path} is missing, but the key database is not empty\nhint: put the file back, or move the database away to begin anew"
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
        "{what} was altered in the database: it is not what was stored under this name and policy"
    )]
    Altered {
        /// Which row.
        what: String,
    },
    /// Import of a name that is there.
    #[error("key {0} exists already\nhint: delete it first, or replace it")]
    Exists(KeyId),
    /// There is no such key, or no such version.
    #[error("there is no key {0}")]
    NotFound(String),
    /// A key that could be released to anybody.
    #[error("an exportable key must have a release policy")]
    NoPolicy,
    /// The policy was declared to be the last one.
    #[error("the release policy of key {0} is immutable")]
    Immutable(KeyId),
    /// The policy cannot be read.
    #[error("{0}")]
    Policy(String),
    /// An operation that no key is for.
    #[error(
        "key operation {found:?} is unknown, expected encrypt, decrypt, sign, verify, wrapKey, unwrapKey, import or export"
    )]
    Operation {
        /// The operation found.
        found: String,
    },
    /// Key material.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// A secret of the service's own.
    #[error("a secret of the service's own cannot be made")]
    Secret(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The clock stands before 1970.
    #[error("the clock stands before the year 1970")]
    Clock,
}

/// What a key may be used for, and when. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// A key that is not enabled is not released.
    pub enabled: bool,
    /// Whether it may leave the service at all.
    pub exportable: bool,
    /// When this version was made.
    pub created_s: u64,
    /// When it was changed last.
    pub updated_s: u64,
    /// Told to clients; a release does not ask, as in Azure.
    pub not_before_s: Option<u64>,
    /// Told to clients; a release does not ask, as in Azure.
    pub expires_s: Option<u64>,
}

/// A release policy as it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its text, byte for byte.
    pub text: String,
    /// The same, read.
    pub policy: ReleasePolicy,
    /// Whether it can never be changed.
    pub immutable: bool,
}

impl Rule {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`VaultError::Policy`] with what is wrong.
    pub fn parse(text: &str, immutable: bool) -> Result<Self, VaultError> {
        let words = |error: PolicyError| match std::error::Error::source(&error) {
            Some(source) => VaultError::Policy(format!("{error}: {source}")),
            None => VaultError::Policy(error.to_string()),
        };
        let policy = ReleasePolicy::parse(text).map_err(words)?;
        Ok(Self { text: text.to_owned(), policy, immutable })
    }
}

/// One version of a key: all but its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// 32 hex digits.
    pub version: String,
    /// How many versions came before it since the name is there, and itself.
    pub ordinal: u64,
    /// What it is.
    pub kty: KeyType,
    /// What it is for.
    pub ops: Vec<String>,
    /// Whether and when it may be used.
    pub attributes: Attributes,
    /// Under which claims it is released; never without one if it is exportable.
    pub rule: Option<Rule>,
    /// Public members of its JSON Web Key.
    pub public: Map<String, Value>,
}

impl KeyInfo {
    /// What a guest that gets it through our own protocol gets.
    pub fn kind(&self) -> KeyKind {
        match self.kty.family {
            Family::Oct => KeyKind::Oct,
            Family::Opaque | Family::Rsa | Family::Ec => KeyKind::Opaque,
        }
    }
}

/// A key with its secret, and its row as it was found.
pub(crate) struct StoredKey {
    pub(crate) info: KeyInfo,
    pub(crate) secret: Secret,
    pub(crate) row: KeyRow,
}

pub(crate) struct Vault {
    database: Database,
    kek: Kek,
    identity: ServiceKey,
}

impl Vault {
    pub(crate) async fn open(
        database: Database,
        kek: &KekSource,
        environment: &dyn Environment,
    ) -> Result<Self, VaultError> {
        let kek = open_kek(kek, &database, environment).await?;
        upgrade_from_version_1(&database, &kek, environment).await?;
        let make = || Ok(random32(environment).map_err(KekError::from)?.to_vec());
        let seed = service_secret(&database, &kek, environment, IDENTITY, make).await?;
        let altered = |_| VaultError::Altered { what: "the service's own key".to_owned() };
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(altered)?;
        let identity = ServiceKey::from_seed(&Seed::new(*seed));
        Ok(Self { database, kek, identity })
    }

    /// The key pair by which guests know this service.
    pub(crate) fn identity(&self) -> &ServiceKey {
        &self.identity
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Says which key-encryption key is in use.
    pub(crate) fn kek_id(&self) -> [u8; 8] {
        self.kek.id()
    }

    /// A secret that all replicas share, made by `make` on first use.
    pub(crate) async fn service_secret(
        &self,
        environment: &dyn Environment,
        name: &str,
        make: impl FnOnce() -> Result<Vec<u8>, VaultError>,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        service_secret(&self.database, &self.kek, environment, name, make).await
    }

    /// What changes such a secret from `old` to `new`; `None` when it is another one by now.
    pub(crate) async fn changed_service_secret(
        &self,
        environment: &dyn Environment,
        name: &str,
        old: &[u8],
        new: &[u8],
    ) -> Result<Option<Change>, VaultError> {
        let (what, aad) = (|| secret_words(name), service_context(name));
        let Some(before) = read_service_secret(&self.database, name).await? else {
            return Ok(None);
        };
        if open_sealed(&self.kek, &before, &aad, &what)?.as_slice() != old {
            return Ok(None);
        }
        let after = SealedRow::new(self.kek.id(), self.kek.seal(new, &aad, environment)?);
        Ok(Some(Change::Secret { name: name.to_owned(), before, after }))
    }

    /// The row that stores a key.
    pub(crate) fn seal(
        &self,
        info: &KeyInfo,
        secret: &Secret,
        environment: &dyn Environment,
    ) -> Result<KeyRow, VaultError> {
        let seconds = |time: u64| i64::try_from(time).map_err(|_| VaultError::Clock);
        let bound = |time: Option<u64>| time.map_or(Ok(-1), seconds);
        let sealed = SealedRow { kek: Vec::new(), nonce: Vec::new(), ciphertext: Vec::new() };
        let mut row = KeyRow {
            name: info.id.to_string(),
            version: info.version.clone(),
            ordinal: seconds(info.ordinal)?,
            kty: info.kty.name().to_owned(),
            ops: serde_json::to_string(&info.ops).unwrap_or_default(),
            enabled: info.attributes.enabled.into(),
            exportable: info.attributes.exportable.into(),
            created_s: seconds(info.attributes.created_s)?,
            updated_s: seconds(info.attributes.updated_s)?,
            not_before_s: bound(info.attributes.not_before_s)?,
            expires_s: bound(info.attributes.expires_s)?,
            policy: info.rule.as_ref().map(|rule| rule.text.clone()).unwrap_or_default(),
            immutable: info.rule.as_ref().is_some_and(|rule| rule.immutable).into(),
            public: serde_json::to_string(&info.public).unwrap_or_default(),
            sealed,
        };
        let sealed = self.kek.seal(secret.as_bytes(), &row.context(), environment)?;
        row.sealed = SealedRow::new(self.kek.id(), sealed);
        Ok(row)
    }

    /// A version, or the latest one.
    pub(crate) async fn find(
        &self,
        id: &KeyId,
        version: Option<&str>,
    ) -> Result<Option<StoredKey>, VaultError> {
        let mut connection = self.database.pool().acquire().await.map_err(StoreError::from)?;
        let row = match version {
            Some(version) => rows::version(&mut connection, id.as_str(), version).await?,
            None => rows::latest(&mut connection, id.as_str()).await?,
        };
        row.map(|row| self.open_row(row)).transpose()
    }

    /// The latest version of each key behind `after`, each opened to see that it is what was stored.
    pub(crate) async fn list(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Result<KeyInfo, VaultError>>, VaultError> {
        let mut connection = self.database.pool().acquire().await.map_err(StoreError::from)?;
        let rows = rows::list(&mut connection, after, limit.into()).await?;
        Ok(rows.into_iter().map(|row| self.open_row(row).map(|key| key.info)).collect())
    }

    /// The versions of one key behind number `after`.
    pub(crate) async fn versions(
        &self,
        id: &KeyId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Result<KeyInfo, VaultError>>, VaultError> {
        let mut connection = self.database.pool().acquire().await.map_err(StoreError::from)?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = rows::versions(&mut connection, id.as_str(), after, limit.into()).await?;
        Ok(rows.into_iter().map(|row| self.open_row(row).map(|key| key.info)).collect())
    }

    /// Nothing of the row is read before the seal has proven that it is what was stored.
    pub(crate) fn open_row(&self, row: KeyRow) -> Result<StoredKey, VaultError> {
        let what = || format!("key {:?}", row.name);
        let altered = || VaultError::Altered { what: what() };
        let mut bytes = open_sealed(&self.kek, &row.sealed, &row.context(), &what)?;
        let seconds = |time: i64| u64::try_from(time).map_err(|_| altered());
        let bound = |time: i64| u64::try_from(time).ok();
        let rule = match row.policy.as_str() {
            "" => None,
            text => Some(Rule::parse(text, row.immutable == 1).map_err(|_| altered())?),
        };
        let info = KeyInfo {
            id: row.name.parse().map_err(|_| altered())?,
            version: row.version.clone(),
            ordinal: seconds(row.ordinal)?,
            kty: row.kty.parse().map_err(|_| altered())?,
            ops: serde_json::from_str(&row.ops).map_err(|_| altered())?,
            attributes: Attributes {
                enabled: row.enabled == 1,
                exportable: row.exportable == 1,
                created_s: seconds(row.created_s)?,
                updated_s: seconds(row.updated_s)?,
                not_before_s: bound(row.not_before_s),
                expires_s: bound(row.expires_s),
            },
            rule,
            public: serde_json::from_str(&row.public).map_err(|_| altered())?,
        };
        let secret = Secret::new(std::mem::take(&mut *bytes)).map_err(|_| altered())?;
        Ok(StoredKey { info, secret, row })
    }
}

/// The key-encryption key, made where nothing was ever sealed. Of replicas that start at once one makes it and the others find it: a token
/// takes any number of keys of one label, and then it is not clear which one seals. A key that is there is opened without a turn, for a token that
/// hangs must not keep other replicas waiting.
async fn open_kek(
    source: &KekSource,
    database: &Database,
    environment: &dyn Environment,
) -> Result<Kek, VaultError> {
    if let Some(kek) = find_kek(source, database).await? {
        return Ok(kek);
    }
    let turn = database.turn().await?;
    let kek = make_kek(source, database, environment).await;
    turn.rollback().await.map_err(StoreError::from)?;
    kek
}

/// The key that is there.
async fn find_kek(source: &KekSource, database: &Database) -> Result<Option<Kek>, VaultError> {
    let key = match source {
        KekSource::File(path) if !path.try_exists().unwrap_or(true) => return Ok(None),
        KekSource::File(path) => return Ok(Some(Kek::read(path)?)),
        KekSource::Variable(name) => return Ok(Some(Kek::from_variable(name)?)),
        KekSource::Token(key) => key,
    };
    let kek = match blocking(|| Kek::in_token(key)) {
        Err(KekError::Token(TokenKeyError::NoKey { .. })) => return Ok(None),
        opened => opened?,
    };
    // Behind the first start it is known by what it sealed; before that, nothing but the token says whose key it is.
    if database.is_empty().await? {
        kek.check_made_there()?;
    }
    Ok(Some(kek))
}

/// The key that somebody else made meanwhile, or a new one.
async fn make_kek(
    source: &KekSource,
    database: &Database,
    environment: &dyn Environment,
) -> Result<Kek, VaultError> {
    if let Some(kek) = find_kek(source, database).await? {
        return Ok(kek);
    }
    let place = match source {
        KekSource::File(path) => path.display().to_string(),
        KekSource::Variable(name) => name.clone(),
        KekSource::Token(key) => key.to_string(),
    };
    let missing = || VaultError::KekMissing { path: place };
    if !database.is_empty().await? {
        return Err(missing());
    }
    match source {
        KekSource::File(path) => Kek::make(path, environment)?,
        KekSource::Variable(_) => {}
        KekSource::Token(key) => blocking(|| key.make()).map_err(KekError::from)?,
    }
    find_kek(source, database).await?.ok_or_else(missing)
}

async fn service_secret(
    database: &Database,
    kek: &Kek,
    environment: &dyn Environment,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, VaultError>,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (what, aad) = (|| secret_words(name), service_context(name));
    if read_service_secret(database, name).await?.is_none() {
        let secret = Zeroizing::new(make()?);
        let sealed = kek.seal(&secret, &aad, environment)?;
        // Of two replicas that start at once, the first one's secret stays.
        sqlx::query("INSERT INTO service (name, kek, nonce, sealed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(kek.id().to_vec())
            .bind(sealed.nonce.to_vec())
            .bind(sealed.ciphertext)
            .execute(database.pool())
            .await
            .map_err(StoreError::from)?;
    }
    let row = read_service_secret(database, name).await?;
    let row = row.ok_or_else(|| VaultError::Altered { what: what() })?;
    open_sealed(kek, &row, &aad, &what)
}

fn secret_words(name: &str) -> String {
    format!("the service's own secret {name:?}")
}

/// What such a secret is bound to.
fn service_context(name: &str) -> Vec<u8> {
    version_1_context(name, "service", "", 0)
}

async fn read_service_secret(
    database: &Database,
    name: &str,
) -> Result<Option<SealedRow>, StoreError> {
    let row = sqlx::query("SELECT kek, nonce, sealed FROM service WHERE name = $1")
        .bind(name)
        .fetch_optional(database.pool())
        .await?;
    Ok(row.as_ref().map(SealedRow::read).transpose()?)
}

pub(crate) fn open_sealed(
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
    let sealed = row.sealed().ok_or_else(|| VaultError::Altered { what: what() })?;
    kek.open(&sealed, aad)?.ok_or_else(|| VaultError::Altered { what: what() })
}

/// A name for a version: 32 random hex digits.
pub(crate) fn new_version(environment: &dyn Environment) -> Result<String, KekError> {
    let mut bytes = [0; 16];
    environment.random(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> Result<u64, VaultError> {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map(|age: Duration| age.as_secs())
        .map_err(|_| VaultError::Clock)
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
