//! The service: keys in, decisions out.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ah_collateral::RevocationLists;
use ah_release_api::{
    Challenge, Nonce, PublicKey, Refusal, RefusedBy, ReleaseRequest, Released, Request, Response,
};
use ah_verifier::{QuoteCollateral, TrustedRoots};
use aws_lc_rs::signature::Ed25519KeyPair;
use tokio::sync::Semaphore;

use crate::database::{Database, Location, StoreError};
use crate::environment::{Environment, RandomError, SystemEnvironment, random32};
use crate::files::private_dir;
use crate::flood::{Flood, LeftOut};
use crate::journal::{Change, Journal, Outcome};
use crate::kek::KekError;
use crate::keys::Turns;
use crate::log::{Event, LogEntry, Verdict};
use crate::nonces::{NonceError, Nonces};
use crate::release::Refused;
use crate::vault::{KekSource, Vault, VaultError, seconds};

const DATABASE: &str = "keys.sqlite3";
const KEK: &str = "key-encryption-key";

/// How long a guest may take from challenge to request: its report takes longest.
const NONCE_LIFETIME: Duration = Duration::from_secs(120);
/// Most used challenges that are remembered: under a hundred bytes each.
const NONCE_CAPACITY: usize = 64 * 1024;

/// Most pieces of evidence that a service verifies at a time: more would only take turns at the processors, each on a thread of its own. The
/// others wait, as long as the server's time for a request lets them.
pub fn verified_at_once() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().saturating_mul(2))
}

/// Told of every decision that has a line in the log, after it is there.
pub type Observer = Arc<dyn Fn(&LogEntry) + Send + Sync>;

/// Gives the collateral of TDX quotes, one document for each kind of platform.
pub type QuoteCollateralSource =
    Arc<dyn Fn() -> Result<Arc<Vec<QuoteCollateral>>, String> + Send + Sync>;

/// How a service is set up.
#[derive(Clone)]
pub struct Options {
    /// Whose reports are believed.
    pub roots: TrustedRoots,
    /// What SNP reports are checked for revocation with.
    pub lists: RevocationLists,
    /// What TDX quotes are verified with; without it they are refused.
    pub quotes: Option<QuoteCollateralSource>,
    /// How long a challenge is good for.
    pub nonce_lifetime: Duration,
    /// How many used challenges are remembered in memory, beside the database.
    pub nonce_capacity: usize,
    /// Clock and randomness.
    pub environment: Arc<dyn Environment>,
    /// Who is told of decisions beside the log.
    pub observer: Option<Observer>,
}

impl Options {
    /// The usual settings.
    pub fn new(roots: TrustedRoots) -> Self {
        Self {
            roots,
            lists: RevocationLists::default(),
            quotes: None,
            nonce_lifetime: NONCE_LIFETIME,
            nonce_capacity: NONCE_CAPACITY,
            environment: Arc::new(SystemEnvironment),
            observer: None,
        }
    }
}

/// Why the service could not do what its owner asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Keys.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Keys or log could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log has fewer entries.
    #[error("decision log has {size} entries; there is no entry or head of number {found}")]
    NoEntry {
        /// What was asked for.
        found: u64,
        /// How many there are.
        size: u64,
    },
    /// No randomness for a nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Key store and release, without any transport: messages go in as bytes and come out as bytes.
pub struct KeyService {
    vault: Vault,
    nonces: Nonces,
    journal: Journal,
    log_key: Ed25519KeyPair,
    flood: Mutex<Flood>,
    turns: Turns,
    verifications: Semaphore,
    options: Options,
}

impl KeyService {
    /// Opens the service in `dir`, which nobody else may read; made with everything in it on first use.
    ///
    /// # Errors
    /// [`ServiceError`], with a hint where the owner can help.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, ServiceError> {
        private_dir(dir).map_err(|error| VaultError::Kek(KekError::File(error)))?;
        let location = Location::Sqlite(dir.join(DATABASE));
        Self::connect(&location, &KekSource::File(dir.join(KEK)), options).await
    }

    /// Opens the service on any database, which may have other replicas of it.
    ///
    /// # Errors
    /// [`ServiceError`], with a hint where the owner can help.
    pub async fn connect(
        location: &Location,
        kek: &KekSource,
        options: Options,
    ) -> Result<Self, ServiceError> {
        let environment = options.environment.clone();
        let environment = environment.as_ref();
        let database = Database::open(location).await?;
        let vault = Vault::open(database.clone(), kek, environment).await?;
        let fresh = || Ok(random32(environment).map_err(KekError::from)?.to_vec());
        let nonce_key = vault.service_secret(environment, "nonce-key", fresh).await?;
        let log_seed = vault.service_secret(environment, "log-key", fresh).await?;
        let log_key = Ed25519KeyPair::from_seed_unchecked(&log_seed)
            .map_err(|_| VaultError::Altered { what: "the log's own key".to_owned() })?;
        let nonces = Nonces::new(&nonce_key, options.nonce_lifetime, options.nonce_capacity);
        let journal = Journal::start(database);
        Ok(Self {
            vault,
            nonces,
            journal,
            log_key,
            flood: Mutex::default(),
            turns: Turns::default(),
            verifications: Semaphore::new(verified_at_once()),
            options,
        })
    }

    /// The public key that guests know this service by.
    pub fn identity(&self) -> PublicKey {
        self.vault.identity().public()
    }

    /// A secret that all replicas of this service share, made by `make` on first use and sealed like a key.
    ///
    /// # Errors
    /// When the database fails, or the secret was altered there.
    pub async fn shared_secret(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, ServiceError> {
        let name = format!("shared/{name}");
        let make = || make().map_err(VaultError::Secret);
        Ok(self.vault.service_secret(self.environment(), &name, make).await?)
    }

    /// Puts `new` in the place of the shared secret `name`, if that is still `old`: of two replicas that change it at the same time, one
    /// does. Says whether it was this one; then there is an entry in the log with `words`.
    ///
    /// # Errors
    /// When the database fails, or the secret was altered there.
    pub async fn change_shared_secret(
        &self,
        name: &str,
        old: &[u8],
        new: &[u8],
        words: String,
    ) -> Result<bool, ServiceError> {
        let (environment, name) = (self.environment(), format!("shared/{name}"));
        let changed = self.vault.changed_service_secret(environment, &name, old, new).await?;
        let Some(change) = changed else { return Ok(false) };
        let mut entry = LogEntry::new(Event::Secret, None, environment.now());
        entry.decision = Verdict::Done;
        entry.reasons = vec![words];
        Ok(self.write(change, &entry).await? == Outcome::Done)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), ServiceError> {
        Ok(self.vault.database().ping().await?)
    }

    /// A fresh challenge.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn challenge(&self) -> Result<Challenge, ServiceError> {
        let mut random = [0; 8];
        self.environment().random(&mut random)?;
        let nonce = self.nonces.issue(random, self.environment().now());
        let expires_in_s = u32::try_from(self.options.nonce_lifetime.as_secs()).unwrap_or(u32::MAX);
        Ok(Challenge { nonce, expires_in_s })
    }

    /// Decides on a request, logs the decision, answers.
    pub async fn release(&self, request: &ReleaseRequest) -> Response {
        let now = self.environment().now();
        let mut entry = LogEntry::new(Event::Release, Some(request.key_id.clone()), now);
        let mut spent = Change::None;
        let decision = self.decide(request, now, &mut entry, &mut spent).await;
        self.conclude(entry, decision, spent).await
    }

    async fn conclude(
        &self,
        mut entry: LogEntry,
        decision: Result<Released, Refused>,
        spent: Change,
    ) -> Response {
        let released = match decision {
            Ok(released) => released,
            Err(refused) => return self.refuse(entry, refused, spent).await,
        };
        entry.decision = Verdict::Released;
        match self.write(spent, &entry).await {
            Ok(Outcome::Done) => Response::Released(released),
            Ok(Outcome::NotApplied) => {
                entry.decision = Verdict::Refused;
                let refused = Refused::of(RefusedBy::Nonce, &NonceError::Used);
                self.refuse(entry, refused, Change::None).await
            }
            // What is not in the log does not happen.
            Err(error) => Response::Refused(Refused::internal(&error).told),
        }
    }

    /// One message in, one message out, both JSON without frame; never fails, since a refusal is an answer.
    pub async fn handle(&self, message: &[u8]) -> Vec<u8> {
        let response = match Request::from_json(message) {
            Ok(Request::Challenge {}) => match self.challenge() {
                Ok(challenge) => Response::Challenge(challenge),
                Err(error) => Response::Refused(Refused::internal(&error).told),
            },
            Ok(Request::Release(request)) => self.release(&request).await,
            Err(error) => {
                let entry = LogEntry::new(Event::Release, None, self.environment().now());
                self.refuse(entry, Refused::of(RefusedBy::Request, &error), Change::None).await
            }
        };
        response.to_json().unwrap_or_else(|error| {
            let refusal = Refusal::new(RefusedBy::Service, &error.to_string());
            Response::Refused(refusal).to_json().unwrap_or_default()
        })
    }

    /// Waits until the database is closed. Refusals that were only counted are in the log then.
    pub async fn close(&self) {
        let left_out = self.flood().end();
        self.tell_left_out(left_out).await;
        self.vault.database().close().await;
    }

    async fn refuse(&self, mut entry: LogEntry, refused: Refused, spent: Change) -> Response {
        entry.refused_by = Some(refused.told.by);
        entry.reasons = refused.reasons;
        // The kind of TEE is known as soon as the evidence is verified and is for this request. A refusal that cannot be logged is still a refusal.
        if entry.tee.is_some() || self.admits().await {
            if let Ok(Outcome::NotApplied) = self.write(spent, &entry).await {
                let _ = self.write(Change::None, &entry).await;
            }
        } else if !matches!(spent, Change::None) {
            let _ = self.journal.write(spent, None).await;
        }
        Response::Refused(refused.told)
    }

    /// Notes that `caller` was refused before anything was done for it. Anybody can cause this, so only some have entries of their own.
    pub async fn note_refused_access(&self, caller: Option<&str>, what: &str) {
        if self.admits().await {
            let mut entry = LogEntry::new(Event::Access, None, self.environment().now());
            entry.caller = caller.map(str::to_owned);
            entry.reasons = vec![what.chars().take(200).collect()];
            let _ = self.write(Change::None, &entry).await;
        }
    }

    pub(crate) async fn admits(&self) -> bool {
        let now = self.environment().now();
        let (left_out, admitted) = {
            let mut flood = self.flood();
            (flood.ended(now), flood.admits(now))
        };
        self.tell_left_out(left_out).await;
        admitted
    }

    async fn tell_left_out(&self, left_out: Option<LeftOut>) {
        let Some(LeftOut { count, since }) = left_out else { return };
        let mut entry = LogEntry::new(Event::Release, None, since);
        entry.reasons =
            vec!["refused before verification, too many for entries of their own".into()];
        entry.left_out = Some(count);
        let _ = self.write(Change::None, &entry).await;
    }

    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change and writes its entry, both durable when this returns.
    pub(crate) async fn write(
        &self,
        change: Change,
        entry: &LogEntry,
    ) -> Result<Outcome, ServiceError> {
        let outcome = self.journal.write(change, Some(entry)).await?;
        if let Some(observer) = self.options.observer.as_ref().filter(|_| outcome == Outcome::Done)
        {
            observer(entry);
        }
        Ok(outcome)
    }

    /// Uses a nonce up, here at once and for all replicas with the entry that is written.
    pub(crate) fn spend(&self, nonce: &Nonce, now: SystemTime) -> Result<Change, NonceError> {
        let expires = self.nonces.spend(nonce, now)?;
        let second =
            |time| seconds(time).ok().and_then(|time| i64::try_from(time).ok()).unwrap_or_default();
        Ok(Change::Spend {
            nonce: *nonce.as_bytes(),
            expires_s: second(expires),
            now_s: second(now),
        })
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn verifications(&self) -> &Semaphore {
        &self.verifications
    }

    pub(crate) fn log_key(&self) -> &Ed25519KeyPair {
        &self.log_key
    }

    pub(crate) fn roots(&self) -> &TrustedRoots {
        &self.options.roots
    }

    pub(crate) fn lists(&self) -> &RevocationLists {
        &self.options.lists
    }

    pub(crate) fn quotes(&self) -> Option<&QuoteCollateralSource> {
        self.options.quotes.as_ref()
    }

    pub(crate) fn environment(&self) -> &dyn Environment {
        self.options.environment.as_ref()
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
