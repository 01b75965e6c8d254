//! The keys that sign attestation tokens, kept among the service's own secrets, sealed like the keys of the vault: the same at every
//! replica, and changed on a schedule.
//!
//! Whoever finds that it is time makes the change, and of several replicas one; the others take over what they find. A replica that has
//! not looked yet signs with a key that is still published, and verifies with the next one, which was published before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ah_keyservice::{KeyService, ServiceError};
use ah_maa::{
    Algorithm, AttestationService, Clock, KeyRing, MAA_LIFETIME, MemoryKeys, RingError,
    RingOptions, SigningKeys, StoreError,
};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// Their name among the service's secrets.
const NAME: &str = "token-keys";
/// How often each replica looks.
const EVERY: Duration = Duration::from_secs(60);
/// How far the clocks of replicas may be from each other.
const CLOCKS: Duration = Duration::from_secs(120);
/// How long a retired key is published: as long as tokens live, and what a replica may lag behind, twice.
const GRACE: Duration = MAA_LIFETIME.saturating_add(EVERY.saturating_mul(2));

/// Why the keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeysError {
    /// The database.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The keys.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Where they are kept in memory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// By this replica's clock the current key is of the future.
    #[error(
        "the key that signs attestation tokens is in use since a time that comes in {ahead_s} s: a replica's clock is wrong, and keys are not changed before that time\nhint: set the clocks of all replicas"
    )]
    Clock {
        /// How far ahead, seconds.
        ahead_s: u64,
    },
}

/// Keeps one service's keys as they are in the database.
pub struct TokenKeys {
    service: Arc<KeyService>,
    attestation: Arc<AttestationService>,
    mirror: Arc<MemoryKeys>,
    url: String,
    rotate_after: Duration,
    clock: Clock,
}

impl TokenKeys {
    pub(crate) fn new(
        service: Arc<KeyService>,
        attestation: Arc<AttestationService>,
        mirror: Arc<MemoryKeys>,
        rotate_after: Duration,
        clock: Clock,
    ) -> Self {
        let url = attestation.issuer().to_owned();
        Self { service, attestation, mirror, url, rotate_after, clock }
    }

    /// Takes over the keys that are in the database; changes them first when it is time. Says whether this call changed them.
    ///
    /// # Errors
    /// [`TokenKeysError`]; then the keys that were known stay in use, and those of the database with [`TokenKeysError::Clock`].
    pub async fn check(&self) -> Result<bool, TokenKeysError> {
        let now = (self.clock)();
        let stored = stored(&self.service, &self.url, now).await?;
        self.take_over(&stored)?;
        if !self.is_due(now)? {
            return Ok(false);
        }
        let (new, kid) = rotated(&stored, &self.url, now)?;
        let words = format!("{NAME}: {kid} signs attestation tokens from now on");
        let changed = self.service.change_shared_secret(NAME, &stored, &new, words).await?;
        self.take_over(&self::stored(&self.service, &self.url, now).await?)?;
        Ok(changed)
    }

    /// A key of the future is no reason to change it: of two clocks one is wrong, and who says that it is the other's.
    fn is_due(&self, now: SystemTime) -> Result<bool, TokenKeysError> {
        match now.duration_since(self.attestation.keys().since()) {
            Ok(age) => Ok(age >= self.rotate_after),
            Err(ahead) if ahead.duration() <= CLOCKS => Ok(false),
            Err(ahead) => Err(TokenKeysError::Clock { ahead_s: ahead.duration().as_secs() }),
        }
    }

    fn take_over(&self, document: &[u8]) -> Result<(), TokenKeysError> {
        self.mirror.write(document)?;
        Ok(self.attestation.keys().follow()?)
    }

    /// Checks from now on, until the handle is dropped.
    pub(crate) fn keep(self: &Arc<Self>) -> Keeper {
        let keys = self.clone();
        Keeper(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                match keys.check().await {
                    Ok(true) => tracing::info!("the keys that sign attestation tokens changed"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "keys of attestation tokens"),
                }
            }
        }))
    }
}

/// What is done again and again until this is dropped.
pub(crate) struct Keeper(pub(crate) JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The keys in the database, made where there are none.
pub(crate) async fn stored(
    service: &KeyService,
    url: &str,
    now: SystemTime,
) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    service.shared_secret(NAME, || Ok(made(url, now)?.to_vec())).await
}

/// A ring that lives in `mirror`.
pub(crate) fn ring(
    mirror: &Arc<MemoryKeys>,
    url: &str,
    now: SystemTime,
) -> Result<KeyRing, RingError> {
    let options = RingOptions { algorithm: Algorithm::Rs256, grace: GRACE, issuer: url.to_owned() };
    KeyRing::open(Box::new(Mirror(mirror.clone())), options, now)
}

fn made(url: &str, now: SystemTime) -> Result<Zeroizing<Vec<u8>>, TokenKeysError> {
    let store = Arc::new(MemoryKeys::default());
    ring(&store, url, now)?;
    Ok(store.read()?.unwrap_or_default())
}

/// The next state of a document, and the name of the key that signs then.
fn rotated(
    document: &[u8],
    url: &str,
    now: SystemTime,
) -> Result<(Zeroizing<Vec<u8>>, String), TokenKeysError> {
    let store = Arc::new(MemoryKeys::default());
    store.write(document)?;
    let ring = ring(&store, url, now)?;
    ring.rotate(now)?;
    // The current key is published first.
    let kid = ring.jwks(now).keys.into_iter().next().and_then(|key| key.kid).unwrap_or_default();
    Ok((store.read()?.unwrap_or_default(), kid))
}

/// Keys in memory that somebody else keeps a hold of.
struct Mirror(Arc<MemoryKeys>);

impl SigningKeys for Mirror {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.read()
    }

    fn write(&self, document: &[u8]) -> Result<(), StoreError> {
        self.0.write(document)
    }
}
