//! An attestation service of its own beside the vault: what it attests, the vault believes.

use std::sync::Arc;
use std::time::SystemTime;

use ah_keyservice::{
    KeyService, KeySet, SharedKeys, TokenError, TokenVerifier, TrustedIssuer, TrustedIssuers,
    VerifiedToken,
};
use ah_maa::{
    Algorithm, AttestationService, KeyRing, MAA_LIFETIME, MemoryKeys, RingOptions, Settings,
    SigningKeys, StoreError, UvmVerifier,
};
use ah_verifier::{Revocation, TrustedRoots};
use zeroize::Zeroizing;

use crate::start::{More, StartError};

/// Name of the keys that sign tokens, among the service's own secrets: sealed like the keys of the vault, and the same at every replica.
const TOKEN_KEYS: &str = "token-keys";
/// Lowest security version of a cloud's utility VM whose endorsement counts.
const LEAST_UVM_SVN: u64 = 100;

/// The attestation routes for a service at `url`, and the verifier of their tokens.
pub(crate) async fn attestation(
    keys: &KeyService,
    url: &str,
    roots: TrustedRoots,
) -> Result<More, StartError> {
    let kept = keys.shared_secret(TOKEN_KEYS, || Ok(made(url)?)).await?;
    let service = Arc::new(open(&kept, url, roots)?);
    let routes = ah_maa::router(service.clone());
    Ok(More { routes, verifiers: vec![Box::new(Own(service))] })
}

fn options(url: &str) -> RingOptions {
    RingOptions { algorithm: Algorithm::Rs256, grace: MAA_LIFETIME, issuer: url.to_owned() }
}

/// Fresh keys, as a ring keeps them.
fn made(url: &str) -> Result<Vec<u8>, StartError> {
    let store = Arc::new(MemoryKeys::default());
    KeyRing::open(Box::new(Shared(store.clone())), options(url)).map_err(failed)?;
    Ok(store.read().map_err(failed)?.map(|kept| kept.to_vec()).unwrap_or_default())
}

/// Keys in memory that somebody else keeps a hold of.
struct Shared(Arc<MemoryKeys>);

impl SigningKeys for Shared {
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.read()
    }

    fn write(&self, document: &[u8]) -> Result<(), StoreError> {
        self.0.write(document)
    }
}

fn open(kept: &[u8], url: &str, roots: TrustedRoots) -> Result<AttestationService, StartError> {
    let store = MemoryKeys::default();
    store.write(kept).map_err(failed)?;
    let reason = "this service has no revocation lists".to_owned();
    let settings = Settings {
        keys: KeyRing::open(Box::new(store), options(url)).map_err(failed)?,
        roots,
        revocation: Arc::new(move |_| Revocation::NotChecked { reason: reason.clone() }),
        lifetime: MAA_LIFETIME,
        endorsements: Some(Box::new(UvmVerifier::azure(LEAST_UVM_SVN))),
        quotes: None,
        clock: Arc::new(SystemTime::now),
    };
    AttestationService::new(settings).map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Attestation(Box::new(error))
}

/// Believes the tokens of the service beside it, by the keys that it publishes at that time.
struct Own(Arc<AttestationService>);

impl TokenVerifier for Own {
    fn verify(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, TokenError> {
        let issuer = self.0.issuer().to_owned();
        let published = serde_json::to_vec(&self.0.jwks()).map_err(|_| TokenError::Malformed)?;
        let keys = KeySet::parse(&published).map_err(|_| TokenError::Malformed)?;
        let issuer = TrustedIssuer { issuer, audience: None, keys: SharedKeys::new(keys) };
        TrustedIssuers::new(vec![issuer]).verify(token, now)
    }
}
