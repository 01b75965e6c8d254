//! The service: keys in, decisions out.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ah_release_api::{
    Challenge, KeyId, KeyKind, Nonce, PublicKey, Refusal, RefusedBy, ReleasePolicy, ReleaseRequest,
    Released, Request, Response, Secret,
};
use ah_verifier::TrustedRoots;

use crate::environment::{Environment, RandomError, SystemEnvironment, random32};
use crate::files::FileError;
use crate::flood::{Flood, LeftOut};
use crate::log::{DecisionLog, Event, LogEntry, Verdict};
use crate::nonces::{NonceError, Nonces};
use crate::release::Refused;
use crate::vault::{KeyInfo, Vault, VaultError};

const LOG: &str = "decisions.jsonl";

/// How long a guest may take from challenge to request: its report takes longest.
const NONCE_LIFETIME: Duration = Duration::from_secs(120);
/// Most challenges that are remembered: 64 bytes each, so well under a megabyte.
const NONCE_CAPACITY: usize = 4096;

/// Told of every decision that has a line in the log, after it is there.
pub type Observer = Arc<dyn Fn(&LogEntry) + Send + Sync>;

/// How a service is set up.
#[derive(Clone)]
pub struct Options {
    /// Whose reports are believed.
    pub roots: TrustedRoots,
    /// How long a challenge is good for.
    pub nonce_lifetime: Duration,
    /// How many challenges are open at most.
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
            nonce_lifetime: NONCE_LIFETIME,
            nonce_capacity: NONCE_CAPACITY,
            environment: Arc::new(SystemEnvironment),
            observer: None,
        }
    }
}

/// Whether an import may take the place of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// A key of this id is an error.
    Refuse,
    /// The old key is gone for good.
    Replace,
}

/// Why the service could not do what its owner asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Keys.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The log.
    #[error("decision log failed")]
    Log(#[source] FileError),
    /// No randomness for a nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Key store and release, without any transport: messages go in as bytes and come out as bytes.
pub struct KeyService {
    vault: Vault,
    nonces: Mutex<Nonces>,
    log: DecisionLog,
    flood: Mutex<Flood>,
    options: Options,
}

impl KeyService {
    /// Opens the service in `dir`, which nobody else may read; made with everything in it on first use.
    ///
    /// # Errors
    /// [`ServiceError`], with a hint where the owner can help.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, ServiceError> {
        let vault = Vault::open(dir, options.environment.as_ref()).await?;
        let log = DecisionLog::open(&dir.join(LOG)).map_err(ServiceError::Log)?;
        let nonces = Mutex::new(Nonces::new(options.nonce_lifetime, options.nonce_capacity));
        Ok(Self { vault, nonces, log, flood: Mutex::default(), options })
    }

    /// The public key that guests know this service by.
    pub fn identity(&self) -> PublicKey {
        self.vault.identity().public()
    }

    /// Puts a key in.
    ///
    /// # Errors
    /// [`VaultError::Exists`] unless it may replace one.
    pub async fn import(
        &self,
        id: &KeyId,
        kind: KeyKind,
        secret: &Secret,
        policy: ReleasePolicy,
        on_existing: OnExisting,
    ) -> Result<KeyInfo, ServiceError> {
        let now = self.environment().now();
        let created = whole_seconds(now);
        let info = KeyInfo { id: id.clone(), kind, policy, created };
        let replace = on_existing == OnExisting::Replace;
        self.vault.import(&info, secret, replace, self.environment()).await?;
        self.note(Event::Import, id, now)?;
        Ok(info)
    }

    /// All keys by id; in the place of one whose row was altered, that error.
    ///
    /// # Errors
    /// When the database fails as a whole.
    pub async fn list(&self) -> Result<Vec<Result<KeyInfo, VaultError>>, ServiceError> {
        Ok(self.vault.list().await?)
    }

    /// Takes a key out; false when there is none.
    ///
    /// # Errors
    /// When the database or the log fails.
    pub async fn delete(&self, id: &KeyId) -> Result<bool, ServiceError> {
        let deleted = self.vault.delete(id).await?;
        if deleted {
            self.note(Event::Delete, id, self.environment().now())?;
        }
        Ok(deleted)
    }

    /// A fresh challenge.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn challenge(&self) -> Result<Challenge, ServiceError> {
        let nonce = Nonce::new(*random32(self.environment())?);
        self.nonces().issue(nonce, self.environment().now());
        let expires_in_s = u32::try_from(self.options.nonce_lifetime.as_secs()).unwrap_or(u32::MAX);
        Ok(Challenge { nonce, expires_in_s })
    }

    /// Decides on a request, logs the decision, answers.
    pub async fn release(&self, request: &ReleaseRequest) -> Response {
        let now = self.environment().now();
        let mut entry = LogEntry::new(Event::Release, Some(request.key_id.clone()), now);
        let decision = self.decide(request, now, &mut entry).await;
        self.conclude(entry, decision)
    }

    fn conclude(&self, mut entry: LogEntry, decision: Result<Released, Refused>) -> Response {
        match decision {
            Ok(released) => {
                entry.decision = Verdict::Released;
                match self.record(&entry) {
                    Ok(()) => Response::Released(released),
                    // What is not in the log does not happen.
                    Err(error) => Response::Refused(Refused::internal(&error).told),
                }
            }
            Err(refused) => self.refuse(entry, refused),
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
                self.refuse(entry, Refused::of(RefusedBy::Request, &error))
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
        self.tell_left_out(left_out);
        self.vault.close().await;
    }

    fn refuse(&self, mut entry: LogEntry, refused: Refused) -> Response {
        entry.refused_by = Some(refused.told.by);
        entry.reasons = refused.reasons;
        // The kind of TEE is known as soon as the evidence is verified.
        if entry.tee.is_some() || self.admits() {
            // A refusal that cannot be logged is still a refusal.
            let _ = self.record(&entry);
        }
        Response::Refused(refused.told)
    }

    fn admits(&self) -> bool {
        let now = self.environment().now();
        let (left_out, admitted) = {
            let mut flood = self.flood();
            (flood.ended(now), flood.admits(now))
        };
        self.tell_left_out(left_out);
        admitted
    }

    fn tell_left_out(&self, left_out: Option<LeftOut>) {
        let Some(LeftOut { count, since }) = left_out else { return };
        let mut entry = LogEntry::new(Event::Release, None, since);
        entry.reasons = vec!["refused before verification, too many for lines of their own".into()];
        entry.left_out = Some(count);
        let _ = self.record(&entry);
    }

    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: Event, id: &KeyId, now: SystemTime) -> Result<(), ServiceError> {
        let entry =
            LogEntry { decision: Verdict::Done, ..LogEntry::new(event, Some(id.clone()), now) };
        self.record(&entry).map_err(ServiceError::Log)
    }

    fn record(&self, entry: &LogEntry) -> Result<(), FileError> {
        self.log.append(entry)?;
        if let Some(observer) = &self.options.observer {
            observer(entry);
        }
        Ok(())
    }

    pub(crate) fn spend(&self, nonce: &Nonce, now: SystemTime) -> Result<(), NonceError> {
        self.nonces().spend(nonce, now)
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    pub(crate) fn roots(&self) -> &TrustedRoots {
        &self.options.roots
    }

    pub(crate) fn environment(&self) -> &dyn Environment {
        self.options.environment.as_ref()
    }
}

/// What the database keeps of a time.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let age = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ah_release_api::WrappedKey;

    fn released() -> Result<Released, Refused> {
        let wrapped = WrappedKey {
            service: PublicKey::new([1; 32]),
            encapsulated: PublicKey::new([2; 32]),
            ciphertext: vec![3; 48],
        };
        Ok(Released { kind: KeyKind::Oct, wrapped })
    }

    #[tokio::test]
    async fn attack_release_that_leaves_no_line_in_the_log() {
        let top = tempfile::tempdir().unwrap();
        let options = Options::new(TrustedRoots::amd());
        let mut service = KeyService::open(&top.path().join("keys"), options).await.unwrap();
        let entry = || LogEntry::new(Event::Release, None, SystemTime::UNIX_EPOCH);
        let answer = service.conclude(entry(), released());
        assert!(matches!(answer, Response::Released(_)));

        service.log = DecisionLog::broken();
        match service.conclude(entry(), released()) {
            Response::Refused(refusal) => assert_eq!(refusal.by, RefusedBy::Service),
            other => panic!("{other:?}"),
        }
    }
}
