//! What owners do with keys: put in, make, look at, change, take out. Each change and its entry in the log are one.

use std::time::SystemTime;

use ah_release_api::{KeyId, KeyKind, ReleasePolicy, Secret};

use crate::journal::{Change, Outcome};
use crate::log::{Event, LogEntry, Verdict};
use crate::material::{Family, KeyType, Material};
use crate::service::{KeyService, ServiceError};
use crate::vault::{Attributes, KeyInfo, Rule, StoredKey, VaultError, new_version, seconds};

/// How often a change is tried again when another replica's came between.
const ATTEMPTS: usize = 32;
/// How many names can be changed at the same time, but for those that share a turn by chance.
const TURNS: usize = 64;
/// What a key may be said to be for.
const OPERATIONS: [&str; 8] =
    ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

/// Whether an import may take the place of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// A key of this name is an error.
    Refuse,
    /// The old key is gone for good, with all its versions.
    Replace,
    /// The key becomes the latest version of the one that is there.
    AddVersion,
}

/// A key that is to be stored.
pub struct NewKey {
    /// Its name.
    pub id: KeyId,
    /// What it is.
    pub kty: KeyType,
    /// Its secret and what is public of it.
    pub material: Material,
    /// What it is for; empty: what such a key is usually for.
    pub ops: Vec<String>,
    /// Whether it may be released now.
    pub enabled: bool,
    /// Whether it may be released ever.
    pub exportable: bool,
    /// Told to clients, seconds since 1970.
    pub not_before_s: Option<u64>,
    /// Told to clients, seconds since 1970.
    pub expires_s: Option<u64>,
    /// Under which claims it is released; required if it is exportable.
    pub rule: Option<Rule>,
}

impl NewKey {
    /// A key that guests get under `policy`, from now on and without end.
    pub fn released_under(
        policy: ReleasePolicy,
        id: KeyId,
        kty: KeyType,
        material: Material,
    ) -> Self {
        Self {
            id,
            kty,
            material,
            ops: Vec::new(),
            enabled: true,
            exportable: true,
            not_before_s: None,
            expires_s: None,
            rule: Some(Rule { text: policy.to_json(), policy, immutable: false }),
        }
    }
}

/// Changes of one key that build on what is there wait for each other.
pub(crate) struct Turns([tokio::sync::Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    async fn take(&self, id: &KeyId) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let sum = id
            .as_str()
            .bytes()
            .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        match self.0.get(sum % TURNS) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}

/// What is to be changed of a key; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyChange {
    /// Whether it may be released now.
    pub enabled: Option<bool>,
    /// What it is for.
    pub ops: Option<Vec<String>>,
    /// Told to clients, seconds since 1970.
    pub not_before_s: Option<u64>,
    /// Told to clients, seconds since 1970.
    pub expires_s: Option<u64>,
    /// Under which claims it is released.
    pub rule: Option<Rule>,
}

impl KeyService {
    /// Puts in a key that guests get under `policy`.
    ///
    /// # Errors
    /// [`VaultError::Exists`] when it is there already and may not be replaced.
    pub async fn import(
        &self,
        id: &KeyId,
        kind: KeyKind,
        secret: &Secret,
        policy: ReleasePolicy,
        on_existing: OnExisting,
    ) -> Result<KeyInfo, ServiceError> {
        let kty = if kind == KeyKind::Oct { KeyType::OCT } else { KeyType::OPAQUE };
        let material = Material::of_bytes(secret.as_bytes().to_vec()).map_err(VaultError::from)?;
        let key = NewKey::released_under(policy, id.clone(), kty, material);
        self.put(key, Event::Import, on_existing, None).await
    }

    /// Puts in any key; `caller` is the name that the log gets.
    ///
    /// # Errors
    /// [`ServiceError`]: the key is there, or its rules do not hold.
    pub async fn put(
        &self,
        key: NewKey,
        event: Event,
        on_existing: OnExisting,
        caller: Option<&str>,
    ) -> Result<KeyInfo, ServiceError> {
        if key.exportable && key.rule.is_none() {
            return Err(VaultError::NoPolicy.into());
        }
        let ops = if key.ops.is_empty() { key.kty.usual_ops() } else { checked(key.ops)? };
        let now = self.environment().now();
        let created_s = seconds(now)?;
        let mut info = KeyInfo {
            id: key.id,
            version: new_version(self.environment()).map_err(VaultError::from)?,
            ordinal: 1,
            kty: key.kty,
            ops,
            attributes: Attributes {
                enabled: key.enabled,
                exportable: key.exportable,
                created_s,
                updated_s: created_s,
                not_before_s: key.not_before_s,
                expires_s: key.expires_s,
            },
            rule: key.rule,
            public: key.material.public,
        };
        let _turn = if on_existing == OnExisting::AddVersion {
            self.turns().take(&info.id).await
        } else {
            None
        };
        for _ in 0..ATTEMPTS {
            if on_existing == OnExisting::AddVersion {
                let latest = self.vault().find(&info.id, None).await?;
                check_rule_stays(latest.as_ref(), info.rule.as_ref())?;
                info.ordinal = latest.map_or(1, |key| key.info.ordinal.saturating_add(1));
            }
            let row =
                Box::new(self.vault().seal(&info, &key.material.secret, self.environment())?);
            let change = match on_existing {
                OnExisting::Refuse => Change::AddKey(row),
                OnExisting::Replace => Change::ReplaceKey(row),
                OnExisting::AddVersion => Change::AddVersion(row),
            };
            let entry = self.done(event, &info.id, Some(&info.version), caller, now);
            match (self.write(change, &entry).await?, on_existing) {
                (Outcome::Done, _) => return Ok(info),
                (Outcome::NotApplied, OnExisting::AddVersion) => {}
                (Outcome::NotApplied, _) => break,
            }
        }
        Err(VaultError::Exists(info.id).into())
    }

    /// Adds a fresh version of the same kind, size, rule and use.
    ///
    /// # Errors
    /// [`VaultError::NotFound`], or as [`Self::put`].
    pub async fn rotate(&self, id: &KeyId, caller: Option<&str>) -> Result<KeyInfo, ServiceError> {
        let StoredKey { info, secret, .. } = self.stored(id, None).await?;
        let shape = Material::shape(&info.public, secret.as_bytes().len());
        let material = match info.kty.family {
            // Any length, where a vault makes three.
            Family::Oct | Family::Opaque => {
                let mut bytes = vec![0; secret.as_bytes().len()];
                self.environment().random(&mut bytes)?;
                Material::of_bytes(bytes)
            }
            family => Material::generate(family, &shape, self.environment()),
        };
        let key = NewKey {
            id: info.id,
            kty: info.kty,
            material: material.map_err(VaultError::from)?,
            ops: info.ops,
            // who was to disable the key did not mean the bytes
            enabled: info.attributes.enabled,
            exportable: info.attributes.exportable,
            not_before_s: None,
            expires_s: None,
            rule: info.rule,
        };
        self.put(key, Event::Create, OnExisting::AddVersion, caller).await
    }

    /// A version, or the latest one.
    ///
    /// # Errors
    /// [`VaultError::NotFound`], or when the row was altered.
    pub async fn info(&self, id: &KeyId, version: Option<&str>) -> Result<KeyInfo, ServiceError> {
        Ok(self.stored(id, version).await?.info)
    }

    /// All keys by name, the latest version of each; in the place of one whose row was altered, that error.
    ///
    /// # Errors
    /// When the database fails as a whole.
    pub async fn list(&self) -> Result<Vec<Result<KeyInfo, VaultError>>, ServiceError> {
        Ok(self.vault().list("", u32::MAX).await?)
    }

    /// At most `limit` keys whose names come behind `after`.
    ///
    /// # Errors
    /// When the database fails as a whole.
    pub async fn page(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Result<KeyInfo, VaultError>>, ServiceError> {
        Ok(self.vault().list(after, limit).await?)
    }

    /// At most `limit` versions of one key behind number `after`, the oldest first.
    ///
    /// # Errors
    /// When the database fails as a whole.
    pub async fn versions(
        &self,
        id: &KeyId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Result<KeyInfo, VaultError>>, ServiceError> {
        Ok(self.vault().versions(id, after, limit).await?)
    }

    /// Changes a version, or the latest one.
    ///
    /// # Errors
    /// [`VaultError::NotFound`], [`VaultError::Immutable`].
    pub async fn update(
        &self,
        id: &KeyId,
        version: Option<&str>,
        change: &KeyChange,
        caller: Option<&str>,
    ) -> Result<KeyInfo, ServiceError> {
        let ops = change.ops.clone().map(checked).transpose()?;
        let _turn = self.turns().take(id).await;
        for _ in 0..ATTEMPTS {
            let key = self.stored(id, version).await?;
            if change.rule.is_some() {
                check_rule_stays(Some(&key), change.rule.as_ref())?;
            }
            let now = self.environment().now();
            let mut info = key.info;
            let attributes = &mut info.attributes;
            attributes.enabled = change.enabled.unwrap_or(attributes.enabled);
            attributes.not_before_s = change.not_before_s.or(attributes.not_before_s);
            attributes.expires_s = change.expires_s.or(attributes.expires_s);
            attributes.updated_s = seconds(now)?;
            info.ops = ops.clone().unwrap_or(info.ops);
            info.rule = change.rule.clone().or(info.rule);
            let after = Box::new(self.vault().seal(&info, &key.secret, self.environment())?);
            let entry = self.done(Event::Update, id, Some(&info.version), caller, now);
            let change = Change::UpdateVersion { before: Box::new(key.row), after };
            if self.write(change, &entry).await? == Outcome::Done {
                return Ok(info);
            }
        }
        Err(VaultError::NotFound(id.to_string()).into())
    }

    /// Takes a key out with all its versions; false when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, id: &KeyId) -> Result<bool, ServiceError> {
        self.delete_by(id, None).await
    }

    /// The same, with the name of who did it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_by(&self, id: &KeyId, caller: Option<&str>) -> Result<bool, ServiceError> {
        let entry = self.done(Event::Delete, id, None, caller, self.environment().now());
        Ok(self.write(Change::DeleteKey(id.to_string()), &entry).await? == Outcome::Done)
    }

    async fn stored(&self, id: &KeyId, version: Option<&str>) -> Result<StoredKey, ServiceError> {
        let missing = || match version {
            Some(version) => VaultError::NotFound(format!("{id}/{version}")),
            None => VaultError::NotFound(id.to_string()),
        };
        Ok(self.vault().find(id, version).await?.ok_or_else(missing)?)
    }

    fn done(
        &self,
        event: Event,
        id: &KeyId,
        version: Option<&str>,
        caller: Option<&str>,
        now: SystemTime,
    ) -> LogEntry {
        LogEntry {
            decision: Verdict::Done,
            key_version: version.map(str::to_owned),
            caller: caller.map(str::to_owned),
            ..LogEntry::new(event, Some(id.clone()), now)
        }
    }
}

/// An immutable rule stays the same through all versions; one that a further version does not have is another.
fn check_rule_stays(latest: Option<&StoredKey>, new: Option<&Rule>) -> Result<(), VaultError> {
    let Some((key, old)) = latest.and_then(|key| Some((key, key.info.rule.as_ref()?))) else {
        return Ok(());
    };
    let changes = new.is_none_or(|new| new.text != old.text || !new.immutable);
    if old.immutable && changes { Err(VaultError::Immutable(key.info.id.clone())) } else { Ok(()) }
}

fn checked(ops: Vec<String>) -> Result<Vec<String>, VaultError> {
    match ops.iter().find(|op| !OPERATIONS.contains(&op.as_str())) {
        Some(other) => Err(VaultError::Operation { found: other.chars().take(40).collect() }),
        None => Ok(ops),
    }
}
