//! Key sets of issuers: from a file, or from an address, fetched again in time.

use std::path::Path;
use std::time::Duration;

use ah_keyservice::{KeySet, KeySetError, SharedKeys, TrustedIssuer};

use crate::config::{ConfigError, IssuerConfig, read};

/// How often a key set is fetched: issuers announce new keys a day or more before they use them.
const EVERY: Duration = Duration::from_secs(600);
/// Time for one fetch.
const FETCH: Duration = Duration::from_secs(20);
/// Longest key set, bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Why an issuer's keys are not there.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// Not a key set.
    #[error(
        "key set of {issuer} cannot be used\nhint: it has to have RSA or P-256 keys, each with a kid"
    )]
    Keys {
        /// Whose.
        issuer: String,
        /// The cause.
        source: KeySetError,
    },
    /// The address.
    #[error(
        "key set of {issuer} cannot be fetched from {url}\nhint: keep it in a file and name that by jwks_file"
    )]
    Fetch {
        /// Whose.
        issuer: String,
        /// From where.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The answer is too long.
    #[error("key set of {issuer} has more than {MAX_BYTES} bytes\nhint: check its address")]
    Long {
        /// Whose.
        issuer: String,
    },
}

/// The issuer with its keys; those from an address are kept fresh as long as this runtime lives.
pub(crate) async fn trusted(
    config: &IssuerConfig,
    audience: Option<String>,
) -> Result<TrustedIssuer, ProviderError> {
    let keys = match (&config.jwks_file, &config.jwks_url) {
        (Some(path), _) => SharedKeys::new(parse(config, read(path)?.as_bytes())?),
        (None, url) => {
            let url = url.clone().unwrap_or_default();
            let client = client(config, &url)?;
            let keys = SharedKeys::new(fetch(&client, config, &url).await?);
            tokio::spawn(refresh(client, config.clone(), url, keys.clone()));
            keys
        }
    };
    Ok(TrustedIssuer { issuer: config.issuer.clone(), audience, keys })
}

async fn refresh(client: reqwest::Client, config: IssuerConfig, url: String, keys: SharedKeys) {
    loop {
        tokio::time::sleep(EVERY).await;
        match fetch(&client, &config, &url).await {
            Ok(fresh) => keys.replace(fresh),
            // The keys that are known stay good: an issuer that cannot be reached takes nobody's access.
            Err(error) => tracing::warn!(%error, "key set is not refreshed"),
        }
    }
}

fn client(config: &IssuerConfig, url: &str) -> Result<reqwest::Client, ProviderError> {
    let failed = |source| ProviderError::Fetch {
        issuer: config.issuer.clone(),
        url: url.to_owned(),
        source,
    };
    let mut builder = reqwest::Client::builder().timeout(FETCH).https_only(true);
    if let Some(path) = &config.jwks_ca {
        builder = builder.tls_certs_merge(certificates(path).map_err(|error| match error {
            CertificatesError::File(error) => error.into(),
            CertificatesError::Pem(source) => failed(source),
        })?);
    }
    builder.build().map_err(failed)
}

enum CertificatesError {
    File(ConfigError),
    Pem(reqwest::Error),
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, CertificatesError> {
    let text = read(path).map_err(CertificatesError::File)?;
    reqwest::Certificate::from_pem_bundle(text.as_bytes()).map_err(CertificatesError::Pem)
}

async fn fetch(
    client: &reqwest::Client,
    config: &IssuerConfig,
    url: &str,
) -> Result<KeySet, ProviderError> {
    let failed = |source| ProviderError::Fetch {
        issuer: config.issuer.clone(),
        url: url.to_owned(),
        source,
    };
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(ProviderError::Long { issuer: config.issuer.clone() });
        }
        bytes.extend_from_slice(&chunk);
    }
    parse(config, &bytes)
}

fn parse(config: &IssuerConfig, bytes: &[u8]) -> Result<KeySet, ProviderError> {
    KeySet::parse(bytes)
        .map_err(|source| ProviderError::Keys { issuer: config.issuer.clone(), source })
}
