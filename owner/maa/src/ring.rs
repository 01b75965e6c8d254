//! The signing keys of an issuer over time: one to come, one in use, and those whose tokens may still be around.
//!
//! ```text
//! next ──rotate──> current ──rotate──> retired ──grace──> gone
//! ```
//!
//! All of them are in the published set, so that a client that fetched it a while ago knows the next key already; what is gone is not, and
//! its tokens are refused from then on.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::base64url;
use crate::clock::unix_s;
use crate::jwks::Jwks;
use crate::key::{Algorithm, KeyError, SigningKey};

/// Most retired keys that are kept; rotating faster than that is a mistake.
const MAX_RETIRED: usize = 16;
/// The form of the stored document.
const FORM: &str = "anchorhold-token-keys/1";

/// Where the keys are kept between starts: one document, private, replaced as a whole.
pub trait SigningKeys: Send + Sync {
    /// The document, `None` before the first write.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Replaces the document; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    fn write(&self, document: &[u8]) -> Result<(), StoreError>;
}

/// Why the document cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("token keys: {what}")]
pub struct StoreError {
    /// What failed, with its place.
    pub what: String,
    /// The cause, if there is one.
    pub source: Option<io::Error>,
}

/// Keys that live as long as the process.
#[derive(Default)]
pub struct MemoryKeys(Mutex<Option<Zeroizing<Vec<u8>>>>);

impl SigningKeys for MemoryKeys {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn write(&self, document: &[u8]) -> Result<(), StoreError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Zeroizing::new(document.to_vec()));
        Ok(())
    }
}

/// How a ring makes and retires keys.
#[derive(Debug, Clone)]
pub struct RingOptions {
    /// Of keys that are made from now on.
    pub algorithm: Algorithm,
    /// How long a retired key stays published; no shorter than tokens live, or tokens die before their time.
    pub grace: Duration,
    /// URL of the instance, the common name of the certificates.
    pub issuer: String,
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The place of the keys.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The document is not one of ours.
    #[error("token keys are not a document of {FORM}")]
    Document,
    /// Too many rotations within one grace.
    #[error(
        "{MAX_RETIRED} retired token keys are still in their grace, expected fewer\nhint: rotate less often, or shorten the grace"
    )]
    TooManyRetired,
}

struct Keys {
    since_s: u64,
    current: Arc<SigningKey>,
    next: Arc<SigningKey>,
    retired: Vec<(Arc<SigningKey>, u64)>,
}

/// The keys of one issuer.
pub struct KeyRing {
    store: Box<dyn SigningKeys>,
    options: RingOptions,
    keys: RwLock<Arc<Keys>>,
    rotation: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentWire {
    form: String,
    /// When `current` became that, seconds since 1970; documents of older versions do not say.
    #[serde(default)]
    since_s: u64,
    current: KeyWire,
    next: KeyWire,
    retired: Vec<RetiredWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiredWire {
    until_s: u64,
    key: KeyWire,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyWire {
    algorithm: Algorithm,
    pkcs8: String,
    certificate: String,
}

impl KeyRing {
    /// The ring in `store`; makes its first keys when there are none.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn open(
        store: Box<dyn SigningKeys>,
        options: RingOptions,
        now: SystemTime,
    ) -> Result<Self, RingError> {
        let keys = match store.read()? {
            Some(document) => Keys::from_document(&document)?,
            None => {
                let fresh = || SigningKey::generate(options.algorithm, &options.issuer);
                let (current, next) = (Arc::new(fresh()?), Arc::new(fresh()?));
                let keys = Keys { since_s: unix_s(now), current, next, retired: Vec::new() };
                store.write(&keys.to_document()?)?;
                keys
            }
        };
        Ok(Self { store, options, keys: RwLock::new(Arc::new(keys)), rotation: Mutex::new(()) })
    }

    /// The URL that tokens are issued under.
    pub fn issuer(&self) -> &str {
        &self.options.issuer
    }

    /// The current key retires, the next one becomes current, a fresh one is made. In force when it is stored.
    ///
    /// # Errors
    /// [`RingError`]; then nothing has changed.
    pub fn rotate(&self, now: SystemTime) -> Result<(), RingError> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        let mut retired = keys.published_retired(now).cloned().collect::<Vec<_>>();
        if retired.len() >= MAX_RETIRED {
            return Err(RingError::TooManyRetired);
        }
        let until = unix_s(now).saturating_add(self.options.grace.as_secs());
        retired.push((keys.current.clone(), until));
        let next = SigningKey::generate(self.options.algorithm, &self.options.issuer)?;
        let (since_s, current) = (unix_s(now), keys.next.clone());
        let keys = Keys { since_s, current, next: Arc::new(next), retired };
        self.store.write(&keys.to_document()?)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Takes over what is in the store now, which another ring may have written.
    ///
    /// # Errors
    /// [`RingError`]; then nothing has changed.
    pub fn follow(&self) -> Result<(), RingError> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(document) = self.store.read()? else { return Err(RingError::Document) };
        let keys = Arc::new(Keys::from_document(&document)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Since when the current key signs.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.keys().since_s)
    }

    /// The set that is published at `now`.
    pub fn jwks(&self, now: SystemTime) -> Jwks {
        let keys = self.keys();
        let retired = keys.published_retired(now).map(|(key, _)| key);
        let keys = [&keys.current, &keys.next].into_iter().chain(retired);
        Jwks { keys: keys.map(|key| key.public().clone()).collect() }
    }

    pub(crate) fn current(&self) -> Arc<SigningKey> {
        self.keys().current.clone()
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Keys {
    fn published_retired(&self, now: SystemTime) -> impl Iterator<Item = &(Arc<SigningKey>, u64)> {
        let now = unix_s(now);
        self.retired.iter().filter(move |(_, until)| now < *until)
    }

    fn from_document(document: &[u8]) -> Result<Self, RingError> {
        let wire: DocumentWire =
            serde_json::from_slice(document).map_err(|_| RingError::Document)?;
        if wire.form != FORM || wire.retired.len() > MAX_RETIRED {
            return Err(RingError::Document);
        }
        let retired = wire.retired.iter().map(|one| Ok((one.key.key()?, one.until_s)));
        Ok(Self {
            since_s: wire.since_s,
            current: wire.current.key()?,
            next: wire.next.key()?,
            retired: retired.collect::<Result<_, RingError>>()?,
        })
    }

    fn to_document(&self) -> Result<Zeroizing<Vec<u8>>, RingError> {
        let retired = self.retired.iter();
        let wire = DocumentWire {
            form: FORM.to_owned(),
            since_s: self.since_s,
            current: KeyWire::of(&self.current),
            next: KeyWire::of(&self.next),
            retired: retired
                .map(|(key, until_s)| RetiredWire { until_s: *until_s, key: KeyWire::of(key) })
                .collect(),
        };
        serde_json::to_vec(&wire).map(Zeroizing::new).map_err(|_| RingError::Document)
    }
}

impl Drop for KeyWire {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

impl KeyWire {
    fn of(key: &SigningKey) -> Self {
        Self {
            algorithm: key.algorithm(),
            pkcs8: base64url::encode(key.pkcs8()),
            certificate: base64url::encode(key.certificate()),
        }
    }

    fn key(&self) -> Result<Arc<SigningKey>, RingError> {
        let decode = |text: &str| base64url::decode(text).map_err(|_| RingError::Document);
        let pkcs8 = Zeroizing::new(decode(&self.pkcs8)?);
        let key = SigningKey::new(self.algorithm, pkcs8, decode(&self.certificate)?)?;
        Ok(Arc::new(key))
    }
}
