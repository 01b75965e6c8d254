//! An attestation service of its own beside the vault: what it attests, the vault believes.

use std::sync::Arc;
use std::time::SystemTime;

use ah_collateral::RevocationLists;
use ah_keyservice::{
    KeyService, KeySet, QuoteCollateralSource, SharedKeys, TokenError, TokenVerifier,
    TrustedIssuer, TrustedIssuers, VerifiedToken,
};
use ah_maa::{
    AttestationService, Clock, KeyRing, MAA_LIFETIME, MemoryKeys, QuoteVerifier, Settings,
    SigningKeys as _, TdxVerifier, UvmVerifier,
};
use ah_verifier::TrustedRoots;

use crate::config::Config;
use crate::start::{More, StartError};
use crate::token_keys::{self, TokenKeys, TokenKeysError};

/// Lowest security version of a cloud's utility VM whose endorsement counts.
const LEAST_UVM_SVN: u64 = 100;

/// The attestation routes for a service at `url`, the verifier of their tokens, and what keeps the keys of these.
pub(crate) async fn attestation(
    keys: &Arc<KeyService>,
    url: &str,
    config: &Config,
    roots: TrustedRoots,
    quotes: Option<QuoteCollateralSource>,
    clock: Clock,
) -> Result<More, StartError> {
    let now = clock();
    let stored = token_keys::stored(keys, url, now).await?;
    let mirror = Arc::new(MemoryKeys::default());
    mirror.write(&stored).map_err(failed)?;
    let ring = token_keys::ring(&mirror, url, now).map_err(failed)?;
    let settings = settings(ring, roots, config.snp.lists(), quotes, clock.clone());
    let service = Arc::new(AttestationService::new(settings).map_err(failed)?);
    let rotate_after = config.rotate_after();
    let token_keys = TokenKeys::new(keys.clone(), service.clone(), mirror, rotate_after, clock);
    // A service that slept for months changes its keys before it signs.
    match token_keys.check().await {
        // Not a reason to be away: the keys are good, only their change waits.
        Err(error @ TokenKeysError::Clock { .. }) => tracing::warn!(%error, "token keys"),
        checked => drop(checked.map_err(failed)?),
    }
    let routes = ah_maa::router(service.clone());
    Ok(More { routes, verifiers: vec![Box::new(Own(service))], token_keys: Arc::new(token_keys) })
}

fn settings(
    keys: KeyRing,
    roots: TrustedRoots,
    lists: RevocationLists,
    quotes: Option<QuoteCollateralSource>,
    clock: Clock,
) -> Settings {
    let quotes = quotes.map(|source| -> Box<dyn QuoteVerifier> {
        Box::new(TdxVerifier::new(Box::new(move || source())))
    });
    Settings {
        keys,
        roots,
        lists,
        lifetime: MAA_LIFETIME,
        endorsements: Some(Box::new(UvmVerifier::azure(LEAST_UVM_SVN))),
        quotes,
        clock,
    }
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
