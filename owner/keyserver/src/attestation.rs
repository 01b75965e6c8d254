//! An attestation service of its own beside the vault: what it attests, the vault believes.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ah_keyservice::{
    KeySet, SharedKeys, TokenError, TokenVerifier, TrustedIssuer, TrustedIssuers, VerifiedToken,
};
use ah_maa::{
    Algorithm, AttestationService, FileKeys, KeyRing, MAA_LIFETIME, RingOptions, Settings,
    UvmVerifier,
};
use ah_verifier::{Revocation, TrustedRoots};

use crate::config::Config;
use crate::start::{More, StartError, roots};

/// The file with the keys that sign tokens, in the state folder.
const TOKEN_KEYS: &str = "token-keys";
/// Lowest security version of a cloud's utility VM whose endorsement counts.
const LEAST_UVM_SVN: u64 = 100;

/// The attestation routes for a service at `url`, and the verifier of their tokens. Where several replicas share a database there are none:
/// the keys that sign tokens are one machine's.
///
/// # Errors
/// [`StartError`] when the keys cannot be kept.
pub fn attestation(config: &Config, url: &str) -> Result<More, StartError> {
    if config.database.is_some() {
        return Ok(More::default());
    }
    let roots = roots(config.danger_software_root.as_deref())?;
    let service = Arc::new(open(&config.state.join(TOKEN_KEYS), url, roots)?);
    let routes = ah_maa::router(service.clone());
    Ok(More { routes, verifiers: vec![Box::new(Own(service))] })
}

fn open(keys: &Path, url: &str, roots: TrustedRoots) -> Result<AttestationService, StartError> {
    let options =
        RingOptions { algorithm: Algorithm::Rs256, grace: MAA_LIFETIME, issuer: url.to_owned() };
    let reason = "this service has no revocation lists".to_owned();
    let settings = Settings {
        keys: KeyRing::open(Box::new(FileKeys::new(keys)), options).map_err(failed)?,
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
