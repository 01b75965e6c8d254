//! From a configuration to a service that listens.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_digest::Sha256;
use ah_keyservice::files::{FileError, Open, private_dir, private_file};
use ah_keyservice::{
    AnswerSigner, AnyOf, Environment, KeyService, Options, ServiceError, SignerError,
    SystemEnvironment, TokenVerifier, TrustedIssuers,
};
use ah_release_api::policy::LOCAL_AUTHORITY;
use ah_verifier::TrustedRoots;
use axum::Router;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;

use crate::app::Parts;
use crate::authority::{Authority, AuthorityError, Identity};
use crate::callers::{Callers, Provider};
use crate::config::{Config, ConfigError, KeyFiles, read_callers};
use crate::providers::{ProviderError, trusted};
use crate::server::Server;
use crate::snp::SnpError;
use crate::tdx::{QuoteFolder, TdxError};
use crate::token_keys::TokenKeys;

/// The root of the service's own certificates, in its state folder.
const AUTHORITY: &str = "ca.pem";
/// The token that is made when nobody is known yet.
const FIRST_TOKEN: &str = "first-token";

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An issuer's keys.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Keys and log.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Its certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A certificate or key from a file.
    #[error("{path} cannot be used as {what}\nhint: it has to be PEM, the key in PKCS#8")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// As what.
        what: &'static str,
    },
    /// Certificate and key do not fit, or the client authority is none.
    #[error(
        "tls: certificate, key or client_ca cannot be used\nhint: check that the key is that of the first certificate"
    )]
    Tls(#[source] rustls::Error),
    /// Signing of answers.
    #[error("answer_signing: {0}\nhint: give an RSA key, or leave answer_signing out")]
    Signer(#[from] SignerError),
    /// The attestation service beside it.
    #[error(
        "attestation: {0}\nhint: url is the issuer of its tokens; its keys are in the database"
    )]
    Attestation(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Collateral of TDX quotes.
    #[error(transparent)]
    Tdx(#[from] TdxError),
    /// Revocation lists of SNP guests.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// An issuer of somebody else's under the service's own name: policies cannot tell whose claims are whose.
    #[error(
        "attestation: issuer {0} is this service itself\nhint: leave it out, its own tokens are believed; or give the service another url"
    )]
    OwnIssuer(String),
    /// A root that cannot be one.
    #[error(
        "danger_software_root: {0}\nhint: it is the DER file root.der of the software TEE's folder"
    )]
    Root(String),
    /// The address.
    #[error("cannot listen on {address}\nhint: choose another with listen")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// Routes and token verifiers of the attestation service.
pub(crate) struct More {
    /// Routes, which guard themselves.
    pub(crate) routes: Router,
    /// Verifiers of attestation tokens.
    pub(crate) verifiers: Vec<Box<dyn TokenVerifier>>,
    /// What signs them.
    pub(crate) token_keys: Arc<TokenKeys>,
}

/// A service that is ready to serve.
pub struct Started {
    /// The service.
    pub server: Server,
    /// How clients call it.
    pub url: String,
    /// The root that clients have to trust; `None` where the certificate comes from files.
    pub authority: Option<PathBuf>,
    /// Where the token is that was made just now, since no caller was known.
    pub first_token: Option<PathBuf>,
    /// What signs attestation tokens; looked after by the server while it serves.
    pub token_keys: Arc<TokenKeys>,
}

/// Opens everything that the configuration names.
///
/// # Errors
/// [`StartError`], each with a hint.
pub async fn start(config: &Config) -> Result<Started, StartError> {
    start_with(config, Arc::new(SystemEnvironment)).await
}

/// The same with a clock and randomness of one's own.
///
/// # Errors
/// As [`start`].
pub async fn start_with(
    config: &Config,
    environment: Arc<dyn Environment>,
) -> Result<Started, StartError> {
    private_dir(&config.state)?;
    let roots = || roots(config.danger_software_root.as_deref());
    let quotes = config.tdx.collateral.clone().map(QuoteFolder::open).transpose()?;
    let quotes = || quotes.as_ref().map(QuoteFolder::source);
    let options = Options {
        environment: environment.clone(),
        lists: config.snp.lists(),
        quotes: quotes(),
        ..Options::new(roots()?)
    };
    let lists = crate::snp::keep(&config.snp).await?;
    let service = Arc::new(KeyService::connect(&config.location(), &config.kek(), options).await?);
    let listen = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let url = config.url.clone().unwrap_or_else(|| format!("https://localhost:{}", address.port()));
    if let Some(other) = config.attestation.iter().find(|other| is_own(&other.issuer, &url)) {
        return Err(StartError::OwnIssuer(other.issuer.clone()));
    }
    let names = names(&url, &address.ip().to_string());
    let authority = Authority::open(&service).await?;
    let tls = match (&config.tls.certificate, &config.tls.key) {
        (Some(certificate), Some(key)) => {
            read_identity(&KeyFiles { certificate: certificate.clone(), key: key.clone() })?
        }
        _ => authority.tls(&names)?,
    };
    let answers = match &config.answer_signing {
        Some(files) => read_identity(files)?,
        None => authority.answers(&names)?,
    };
    let authority_file = config.state.join(AUTHORITY);
    write_private(&authority_file, authority.pem().as_bytes())?;
    let (callers, first_token) = callers(config).await?;
    let clock = Arc::new(move || environment.now());
    let more =
        crate::attestation::attestation(&service, &url, config, roots()?, quotes(), clock).await?;
    let token_keys = more.token_keys;
    let parts = Parts {
        service,
        callers,
        attestation: attestation(config, more.verifiers).await?,
        signer: AnswerSigner::new(&answers.key, &answers.chain)?,
        url: url.clone(),
        limits: config.limits(),
    };
    let own = config.tls.certificate.is_none();
    let server = Server::on(
        listener,
        tls_config(&tls, config.tls.client_ca.as_deref())?,
        parts,
        more.routes,
    )
    .keeping(lists.into_iter().chain([token_keys.keep()]).collect());
    let authority = own.then_some(authority_file);
    Ok(Started { server, url, authority, first_token, token_keys })
}

/// Whether policies take this issuer for the service itself: for its attestation, or for what it verifies at a release.
fn is_own(issuer: &str, url: &str) -> bool {
    let plain = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
    [url, LOCAL_AUTHORITY].into_iter().any(|own| plain(own) == plain(issuer))
}

fn roots(software: Option<&Path>) -> Result<TrustedRoots, StartError> {
    let Some(path) = software else { return Ok(TrustedRoots::amd()) };
    let der = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    TrustedRoots::amd()
        .danger_with_software_root(&der)
        .map_err(|error| StartError::Root(error.to_string()))
}

/// Names of the certificates: the host, and host and port as one name, which clients of vaults compare with the address as they were
/// given it.
fn names(url: &str, address: &str) -> Vec<String> {
    let authority = url.strip_prefix("https://").unwrap_or(url);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let mut names: Vec<String> = Vec::new();
    for name in [host, authority, "localhost", address] {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn read_identity(files: &KeyFiles) -> Result<Identity, StartError> {
    let wrong = |path: &Path, what| StartError::Pem { path: path.to_owned(), what };
    let certificate = |_| wrong(&files.certificate, "certificate chain");
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(certificate)?;
    let chain = chain
        .map(|one| one.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(certificate)?;
    let key = PrivatePkcs8KeyDer::from_pem_file(&files.key)
        .map_err(|_| wrong(&files.key, "private key"))?;
    Ok(Identity { key: key.secret_pkcs8_der().to_vec(), chain })
}

fn tls_config(identity: &Identity, client_ca: Option<&Path>) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = || StartError::Pem {
                path: path.to_owned(),
                what: "authority of callers' certificates",
            };
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_file_iter(path).map_err(|_| wrong())? {
                roots.add(root.map_err(|_| wrong())?).map_err(StartError::Tls)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|_| wrong())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
    builder.with_single_cert(chain, key).map_err(StartError::Tls)
}

/// Callers from their file; where the usual one is not there, it is made, with one caller who may do everything.
async fn callers(config: &Config) -> Result<(Callers, Option<PathBuf>), StartError> {
    let usual = config.state.join("callers.toml");
    let path = config.callers.as_ref().unwrap_or(&usual);
    let mut first_token = None;
    if config.callers.is_none() && !usual.try_exists().unwrap_or(true) {
        first_token = Some(make_first_caller(&config.state, &usual)?);
    }
    let mut callers = Callers { known: read_callers(path)?, providers: Vec::new() };
    for provider in &config.provider {
        let issuer = trusted(&provider.issuer(), Some(provider.audience.clone())).await?;
        let verifier = Box::new(TrustedIssuers::new(vec![issuer]));
        callers.providers.push(Provider { verifier, rules: provider.rules() });
    }
    Ok((callers, first_token))
}

fn make_first_caller(state: &Path, callers: &Path) -> Result<PathBuf, StartError> {
    let mut bytes = [0; 32];
    SystemEnvironment.random(&mut bytes).map_err(|error| StartError::Service(error.into()))?;
    let token = hex::encode(bytes);
    let path = state.join(FIRST_TOKEN);
    write_private(&path, format!("{token}\n").as_bytes())?;
    let text = format!(
        "# Who may call the key service: docs/keyservice.md\n[[caller]]\nname = \"first\"\ntoken_sha256 = \"{}\"\nroles = [\"importer\", \"releaser\", \"auditor\", \"admin\"]\n",
        Sha256::of(&token)
    );
    write_private(callers, text.as_bytes())?;
    Ok(path)
}

/// Writes a file of mode 0600 in the place of one that is there.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    let failed = |source| FileError::Io { action: "written", path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(error).into());
        }
        _ => {}
    }
    let mut file = private_file(path, Open::New)?;
    Ok(file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?)
}

async fn attestation(
    config: &Config,
    mut verifiers: Vec<Box<dyn TokenVerifier>>,
) -> Result<Box<dyn TokenVerifier>, StartError> {
    let mut issuers = Vec::new();
    for issuer in &config.attestation {
        issuers.push(trusted(issuer, None).await?);
    }
    verifiers.push(Box::new(TrustedIssuers::new(issuers)));
    Ok(Box::new(AnyOf::new(verifiers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_issuer_of_somebody_elses_under_a_name_of_the_services_own() {
        let url = "https://keys.example:8443";
        let own = ["", "/", "//"].map(|end| format!("{url}{end}"));
        let verifier = ["", "/"].map(|end| format!("{LOCAL_AUTHORITY}{end}"));
        for issuer in own.iter().chain(&verifier) {
            assert!(is_own(issuer, url), "{issuer}");
        }
        assert!(is_own("https://Keys.example:8443", url));
        for issuer in
            ["https://keys.example", "https://keys.example:8443/x", "https://anchorhold.dev"]
        {
            assert!(!is_own(issuer, url), "{issuer}");
        }
    }
}
