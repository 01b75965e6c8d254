//! What an application asks for, step by step: report, certificates, token, key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ah_evidence::{Evidence, SnpReport};
use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::base64;
use crate::certificates::{CertificateFinder, Certified};
use crate::error::{SidecarError, chain};
use crate::identity::IdentityClient;
use crate::maa::MaaClient;
use crate::options::Options;
use crate::reports::ReleaseSocket;
use crate::tls::Tls;
use crate::uvm::UvmInfo;
use crate::vault::{ReleasedKey, VaultClient};
use crate::wrap::{WrappingKey, open_oaep};

/// How long a token is given out again for the same runtime data; its report is that old at most.
const KEEP_TOKEN: Duration = Duration::from_secs(300);
/// A token is not given out in the last minutes of its life.
const TOKEN_MARGIN_S: u64 = 600;
/// Most tokens that are kept.
const MAX_TOKENS: usize = 64;

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Evidence in parts, for those who talk to a verifier themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Combined {
    /// The TCB that the certificates are for, 16 hex digits.
    pub endorsed_tcb: String,
    /// PEM chain, base64.
    pub endorsements: String,
    /// The report, base64.
    pub evidence: String,
    /// UVM endorsements, base64; empty when the platform gave none.
    pub uvm_endorsements: String,
}

/// A key release, asked for.
#[derive(Debug)]
pub struct ReleaseRequest {
    /// Attestation service, `host[:port][/path]`.
    pub maa_endpoint: String,
    /// Vault, `host[:port]`.
    pub akv_endpoint: String,
    /// Key, `name` or `name/version`.
    pub kid: String,
    /// Access token; without one the pod's identity gets it.
    pub access_token: Option<Zeroizing<String>>,
}

/// Data wrapped to an RSA key of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedData {
    /// RSA-OAEP with SHA-256, one block.
    pub data: Vec<u8>,
    /// Key, `name` or `name/version`.
    pub kid: String,
    /// Vault, `host[:port]`.
    pub akv_endpoint: String,
    /// Attestation service, `host[:port][/path]`.
    pub maa_endpoint: String,
}

/// Answers applications.
pub struct Service {
    socket: ReleaseSocket,
    certificates: CertificateFinder,
    maa: MaaClient,
    vault: VaultClient,
    identity: IdentityClient,
    reference_info: String,
    reference_bytes: Vec<u8>,
    tokens: Mutex<Tokens>,
}

/// By endpoint and digest of the runtime data, with the time of asking.
type Tokens = HashMap<(String, Vec<u8>), (Instant, String)>;

impl Service {
    /// A service by options and environment.
    ///
    /// # Errors
    /// [`SetupError`]: unreadable roots, unreadable information of the platform.
    pub fn new(
        options: &Options,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let tls = Tls::new(options.ca_file.as_deref()).map_err(SetupError)?;
        let client = tls.client().map_err(SetupError)?;
        let uvm = UvmInfo::read(env).map_err(SetupError)?;
        let settings = &options.settings;
        let reference_bytes = base64::standard(&uvm.reference_info).unwrap_or_default();
        Ok(Self {
            socket: ReleaseSocket::new(&options.release_socket).map_err(SetupError)?,
            certificates: CertificateFinder::new(
                uvm.certified,
                settings.certcache.clone(),
                client.clone(),
            ),
            maa: MaaClient::new(client.clone(), &settings.maaconfig.user_agent),
            vault: VaultClient::new(client.clone(), tls),
            identity: IdentityClient::new(client, &settings.identity.client_id, env),
            reference_info: uvm.reference_info,
            reference_bytes,
            tokens: Mutex::default(),
        })
    }

    /// The report over `runtime_data`, as it came.
    ///
    /// # Errors
    /// [`SidecarError::Report`].
    pub async fn raw(&self, runtime_data: &[u8]) -> Result<Vec<u8>, SidecarError> {
        self.socket.evidence(runtime_data).await.map(|evidence| evidence.report)
    }

    /// The report and what endorses it.
    ///
    /// # Errors
    /// [`SidecarError::Report`], [`SidecarError::Certificates`].
    pub async fn combined(&self, runtime_data: &[u8]) -> Result<Combined, SidecarError> {
        let (evidence, certified) = self.certified(runtime_data).await?;
        Ok(Combined {
            endorsements: base64::to_standard(certified.pem().as_bytes()),
            endorsed_tcb: certified.tcbm,
            evidence: base64::to_standard(&evidence.report),
            uvm_endorsements: self.reference_info.clone(),
        })
    }

    /// A token over `runtime_data`. The same question within some minutes gets the same token.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn token(&self, endpoint: &str, runtime_data: &[u8]) -> Result<String, SidecarError> {
        let key = (endpoint.to_owned(), digest(&SHA256, runtime_data).as_ref().to_vec());
        if let Some(token) = self.kept_token(&key) {
            return Ok(token);
        }
        let token = self.fresh_token(endpoint, runtime_data).await?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (since, _)| since.elapsed() < KEEP_TOKEN);
        }
        if tokens.len() < MAX_TOKENS {
            tokens.insert(key, (Instant::now(), token.clone()));
        }
        Ok(token)
    }

    /// A key as JWK text: fresh wrapping key, report over it, token, release, unwrapping.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn release(
        &self,
        request: ReleaseRequest,
    ) -> Result<Zeroizing<String>, SidecarError> {
        let endpoint = request.akv_endpoint.clone();
        let key = self.released(request).await?;
        key.jwk().map_err(|words| SidecarError::Vault { endpoint, words })
    }

    /// What `wrapped` holds, opened with the key that it names.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn unwrap_data(
        &self,
        wrapped: WrappedData,
    ) -> Result<Zeroizing<Vec<u8>>, SidecarError> {
        let WrappedData { data, kid, akv_endpoint, maa_endpoint } = wrapped;
        let endpoint = akv_endpoint.clone();
        let request = ReleaseRequest { maa_endpoint, akv_endpoint, kid, access_token: None };
        let key = self.released(request).await?;
        let failed = |words: &str| SidecarError::Vault { endpoint, words: words.to_owned() };
        let Some(pkcs8) = key.rsa_pkcs8() else {
            return Err(failed("released key is not an RSA key"));
        };
        open_oaep(pkcs8, &data).ok_or_else(|| failed("released key does not open the wrapped data"))
    }

    async fn released(&self, request: ReleaseRequest) -> Result<ReleasedKey, SidecarError> {
        let key = tokio::task::spawn_blocking(WrappingKey::generate)
            .await
            .ok()
            .flatten()
            .ok_or(SidecarError::Internal("wrapping key cannot be made"))?;
        let token = self.fresh_token(&request.maa_endpoint, key.runtime_data()).await?;
        let access = match request.access_token {
            Some(token) => token,
            None => self.identity.token(&request.akv_endpoint).await?,
        };
        self.vault.release(&request.akv_endpoint, &request.kid, &token, &access, &key).await
    }

    async fn fresh_token(
        &self,
        endpoint: &str,
        runtime_data: &[u8],
    ) -> Result<String, SidecarError> {
        let (evidence, certified) = self.certified(runtime_data).await?;
        self.maa.token(endpoint, &evidence, &certified, &self.reference_bytes).await
    }

    async fn certified(&self, runtime_data: &[u8]) -> Result<(Evidence, Certified), SidecarError> {
        let evidence = self.socket.evidence(runtime_data).await?;
        let failed = |error: &dyn std::error::Error| SidecarError::Report(chain(error));
        let raw = evidence.snp_report().map_err(|error| failed(&error))?;
        let report = SnpReport::parse(&raw).map_err(|error| failed(&error))?;
        let certified = self.certificates.find(&evidence, &report).await?;
        Ok((evidence, certified))
    }

    fn kept_token(&self, key: &(String, Vec<u8>)) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, token) = tokens.get(key)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let lives = expires_s(token)? > now.saturating_add(TOKEN_MARGIN_S);
        (lives && since.elapsed() < KEEP_TOKEN).then(|| token.clone())
    }
}

/// `exp` of a token, unverified: it decides about keeping alone.
fn expires_s(token: &str) -> Option<u64> {
    let claims = base64::url(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Map<String, Value>>(&claims).ok()?.get("exp")?.as_u64()
}
