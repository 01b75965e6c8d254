//! The configuration file (TOML): every key is known, every error names what is wrong and what would be right.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ah_digest::Sha256;
use ah_keyservice::{KekSource, Location, PinSource, TokenKey};
use serde::Deserialize;

use crate::app::Limits;
use crate::callers::{Caller, Credential, SubjectRule};
use crate::roles::Role;

/// Port where the configuration names none.
const PORT: u16 = 8443;
/// How long one key signs tokens where the configuration does not say.
const ROTATE_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);
/// Retired keys stay published for hours, and only so many are kept.
const SHORTEST: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path} cannot be read\nhint: check the path, and that it is readable")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {message}\nhint: docs/keyservice.md lists every key of the configuration")]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Line, key, and what is wrong.
        message: String,
    },
    /// A value that cannot be used.
    #[error("{key}: found {found:?}, expected {expected}\nhint: {hint}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

/// How the service is set up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port.
    pub listen: SocketAddr,
    /// `https://host[:port]`, as clients call the service; `https://localhost:PORT` where it is left out.
    pub url: Option<String>,
    /// Folder for what is made on first use, mode 0700.
    pub state: PathBuf,
    /// `postgres://…`; a SQLite file in `state` where it is left out.
    pub database: Option<String>,
    /// Where the key-encryption key comes from.
    pub key_encryption_key: KekConfig,
    /// Certificate of the service, and whose certificates of callers are believed.
    pub tls: TlsConfig,
    /// Certificate and RSA key that releases by token are signed with.
    pub answer_signing: Option<KeyFiles>,
    /// Bounds.
    pub limits: LimitsConfig,
    /// File with callers (`[[caller]]`); `callers.toml` in `state` where it is left out, made with one caller on first use.
    pub callers: Option<PathBuf>,
    /// Identity providers whose tokens are callers.
    pub provider: Vec<ProviderConfig>,
    /// Issuers of attestation tokens that are believed.
    pub attestation: Vec<IssuerConfig>,
    /// How the keys that sign attestation tokens change.
    pub token_keys: TokenKeysConfig,
    /// What SNP reports are checked for revocation with.
    pub snp: SnpConfig,
    /// What TDX quotes are verified with.
    pub tdx: TdxConfig,
    /// Root (DER) of a software TEE whose reports are believed: they prove nothing about hardware.
    pub danger_software_root: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, PORT).into(),
            url: None,
            state: PathBuf::from("/var/lib/anchorhold"),
            database: None,
            key_encryption_key: KekConfig::default(),
            tls: TlsConfig::default(),
            answer_signing: None,
            limits: LimitsConfig::default(),
            callers: None,
            provider: Vec::new(),
            attestation: Vec::new(),
            token_keys: TokenKeysConfig::default(),
            snp: SnpConfig::default(),
            tdx: TdxConfig::default(),
            danger_software_root: None,
        }
    }
}

/// `[key_encryption_key]`: one of the three, or a file in `state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KekConfig {
    /// A file of 32 bytes, mode 0600.
    pub file: Option<PathBuf>,
    /// An environment variable of 64 hex digits.
    pub environment: Option<String>,
    /// A key in a token.
    pub pkcs11: Option<Pkcs11Config>,
}

/// `[key_encryption_key.pkcs11]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The token's module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key, made on first use.
    pub key: String,
    /// A file of mode 0600 with the user's PIN.
    pub pin_file: Option<PathBuf>,
    /// An environment variable with it.
    pub pin_environment: Option<String>,
}

impl Pkcs11Config {
    /// `None` when the PIN has no place, or two.
    fn key(&self) -> Option<TokenKey> {
        let pin = match (&self.pin_file, &self.pin_environment) {
            (Some(file), None) => PinSource::File(file.clone()),
            (None, Some(name)) => PinSource::Variable(name.clone()),
            _ => return None,
        };
        let (module, token, key) = (self.module.clone(), self.token.clone(), self.key.clone());
        Some(TokenKey { module, token, key, pin })
    }
}

/// `[token_keys]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenKeysConfig {
    /// How long one key signs: `90d` or `12h`, 1 hour to 3650 days.
    pub rotate_after: Option<String>,
}

/// `[snp]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpConfig {
    /// Folder with AMD's revocation lists, as `anchorhold collateral` fills it; other processes may share it.
    pub collateral: Option<PathBuf>,
    /// AMD's key distribution service, or a mirror of it, which that folder's lists are fetched from.
    pub kds: Option<String>,
    /// What becomes of a report without a fresh list.
    pub revocation: RevocationConfig,
    /// How long ago a list may have been issued, beside the end that it names itself: `30d` or `12h`, 1 hour to 3650 days.
    pub list_max_age: Option<String>,
}

/// Whether nobody on the way to this address can change what it answers.
fn is_private(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    match url.scheme() {
        "https" => true,
        "http" => host == "localhost" || address.is_ok_and(|one| one.is_loopback()),
        _ => false,
    }
}

impl SnpConfig {
    pub(crate) fn max_list_age(&self) -> Option<Duration> {
        self.list_max_age.as_deref().and_then(days_or_hours)
    }
}

/// `snp.revocation`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationConfig {
    /// Its claims say that nobody looked.
    #[default]
    Optional,
    /// It is refused.
    Required,
}

/// `[tdx]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxConfig {
    /// Folder with Intel's collateral, as `anchorhold collateral import` files it; without one, TDX quotes are refused.
    pub collateral: Option<PathBuf>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Private key, PEM.
    pub key: Option<PathBuf>,
    /// Who signs callers' certificates, PEM; without it nobody is asked for one.
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// `[limits]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Longest body, bytes.
    pub body_bytes: Option<usize>,
    /// Most connections.
    pub connections: Option<usize>,
    /// Most connections of one address.
    pub connections_per_client: Option<usize>,
    /// Requests a second of one address.
    pub requests_per_second: Option<u32>,
    /// Seconds for a handshake or a request's head.
    pub header_timeout_s: Option<u64>,
    /// Seconds for a request.
    pub request_timeout_s: Option<u64>,
    /// Seconds for open requests to end at a stop.
    pub shutdown_timeout_s: Option<u64>,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// `iss` of its tokens.
    pub issuer: String,
    /// Its key set in a file.
    pub jwks_file: Option<PathBuf>,
    /// Its key set at an https address; fetched at the start and every ten minutes.
    pub jwks_url: Option<String>,
    /// Who is believed about that address (PEM), beside the system's authorities.
    pub jwks_ca: Option<PathBuf>,
}

/// `[[provider]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens.
    pub audience: String,
    /// As in [`IssuerConfig`].
    pub jwks_file: Option<PathBuf>,
    /// As in [`IssuerConfig`].
    pub jwks_url: Option<String>,
    /// As in [`IssuerConfig`].
    pub jwks_ca: Option<PathBuf>,
    /// What its subjects may do; the first rule that fits decides.
    pub rule: Vec<RuleConfig>,
}

impl ProviderConfig {
    pub(crate) fn issuer(&self) -> IssuerConfig {
        IssuerConfig {
            issuer: self.issuer.clone(),
            jwks_file: self.jwks_file.clone(),
            jwks_url: self.jwks_url.clone(),
            jwks_ca: self.jwks_ca.clone(),
        }
    }

    pub(crate) fn rules(&self) -> Vec<SubjectRule> {
        let rule = |rule: &RuleConfig| SubjectRule {
            subject: rule.subject.clone(),
            roles: rule.roles.clone(),
        };
        self.rule.iter().map(rule).collect()
    }
}

/// `[[provider.rule]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// `sub`; one `*` stands for any text.
    pub subject: String,
    /// What such a caller may do.
    pub roles: BTreeSet<Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallersFile {
    caller: Vec<CallerConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerConfig {
    name: String,
    token_sha256: Option<Sha256>,
    certificate_sha256: Option<Sha256>,
    certificate_name: Option<String>,
    roles: BTreeSet<Role>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = parse(path, &read(path)?)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, found: &str, expected, hint| {
            Err(ConfigError::Value { key, found: found.to_owned(), expected, hint })
        };
        if let Some(url) = &self.url {
            let host = url.strip_prefix("https://").unwrap_or_default();
            if host.is_empty() || host.contains(['/', '?', '#', '@']) {
                return wrong(
                    "url",
                    url,
                    "https://host or https://host:port",
                    "leave out paths and the slash at the end",
                );
            }
        }
        if let Some(url) = self.database.as_deref()
            && !url.starts_with("postgres://")
            && !url.starts_with("postgresql://")
        {
            let scheme = url.split(':').next().unwrap_or_default();
            return wrong(
                "database",
                scheme,
                "a URL with postgres://",
                "leave it out for SQLite in the state folder",
            );
        }
        let KekConfig { file, environment, pkcs11 } = &self.key_encryption_key;
        let places = [file.is_some(), environment.is_some(), pkcs11.is_some()];
        if places.into_iter().filter(|there| *there).count() > 1 {
            return wrong(
                "key_encryption_key",
                "several of file, environment and pkcs11",
                "one of them",
                "remove the others",
            );
        }
        if pkcs11.as_ref().is_some_and(|config| config.key().is_none()) {
            return wrong(
                "key_encryption_key.pkcs11",
                "none or both",
                "one of pin_file and pin_environment",
                "say where the PIN of the token's user comes from",
            );
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return wrong(
                "tls",
                "one of certificate and key",
                "both or none",
                "without both, a certificate is made",
            );
        }
        if let Some(text) = &self.token_keys.rotate_after
            && days_or_hours(text).is_none()
        {
            return wrong(
                "token_keys.rotate_after",
                text,
                "a number with d or h behind it, 1h to 3650d",
                "\"90d\" is what it is when it is left out",
            );
        }
        self.check_snp()?;
        for (file, url) in self.sources() {
            match (file, url) {
                (true, None) => {}
                (false, Some(url)) if url.starts_with("https://") => {}
                (false, Some(url)) => {
                    return wrong(
                        "jwks_url",
                        url,
                        "an https address",
                        "a key set that came in the clear proves nothing",
                    );
                }
                _ => {
                    return wrong(
                        "issuer",
                        "none or both",
                        "one of jwks_file and jwks_url",
                        "say where its keys come from",
                    );
                }
            }
        }
        Ok(())
    }

    fn check_snp(&self) -> Result<(), ConfigError> {
        let SnpConfig { collateral, kds, list_max_age, .. } = &self.snp;
        let wrong = |key, found: &str, expected, hint| {
            Err(ConfigError::Value { key, found: found.to_owned(), expected, hint })
        };
        if let Some(url) = kds
            && collateral.is_none()
        {
            let hint = "lists are kept in that folder, so that others need not fetch them";
            return wrong("snp.kds", url, "snp.collateral beside it", hint);
        }
        if let Some(url) = kds
            && !is_private(url)
        {
            let hint = "in the clear anybody on the way can keep a newer list back; http is for a mirror on this machine only";
            return wrong("snp.kds", url, "an https address, or http on loopback", hint);
        }
        if let Some(text) = list_max_age
            && days_or_hours(text).is_none()
        {
            let hint = "leave it out, and a list is good until the end that it names";
            return wrong(
                "snp.list_max_age",
                text,
                "a number with d or h behind it, 1h to 3650d",
                hint,
            );
        }
        Ok(())
    }

    fn sources(&self) -> impl Iterator<Item = (bool, Option<&str>)> {
        let issuers = self
            .attestation
            .iter()
            .map(|issuer| (issuer.jwks_file.is_some(), issuer.jwks_url.as_deref()));
        let providers =
            self.provider.iter().map(|one| (one.jwks_file.is_some(), one.jwks_url.as_deref()));
        issuers.chain(providers)
    }

    /// Where keys and log are kept.
    pub fn location(&self) -> Location {
        match &self.database {
            Some(url) => Location::Postgres(url.clone()),
            None => Location::Sqlite(self.state.join("keys.sqlite3")),
        }
    }

    /// Where the key-encryption key comes from.
    pub fn kek(&self) -> KekSource {
        let KekConfig { file, environment, pkcs11 } = &self.key_encryption_key;
        match (environment, pkcs11.as_ref().and_then(Pkcs11Config::key)) {
            (_, Some(key)) => KekSource::Token(key),
            (Some(name), None) => KekSource::Variable(name.clone()),
            (None, None) => KekSource::File(
                file.clone().unwrap_or_else(|| self.state.join("key-encryption-key")),
            ),
        }
    }

    /// How long one key signs tokens.
    pub(crate) fn rotate_after(&self) -> Duration {
        self.token_keys.rotate_after.as_deref().and_then(days_or_hours).unwrap_or(ROTATE_AFTER)
    }

    pub(crate) fn limits(&self) -> Limits {
        let (of, usual) = (&self.limits, Limits::default());
        let seconds = |time: Option<u64>, usual| time.map_or(usual, Duration::from_secs);
        Limits {
            body_bytes: of.body_bytes.unwrap_or(usual.body_bytes),
            connections: of.connections.unwrap_or(usual.connections),
            connections_per_client: of
                .connections_per_client
                .unwrap_or(usual.connections_per_client),
            requests_per_second: of.requests_per_second.unwrap_or(usual.requests_per_second),
            header_timeout: seconds(of.header_timeout_s, usual.header_timeout),
            request_timeout: seconds(of.request_timeout_s, usual.request_timeout),
            shutdown_timeout: seconds(of.shutdown_timeout_s, usual.shutdown_timeout),
        }
    }
}

/// `90d` or `12h`.
fn days_or_hours(text: &str) -> Option<Duration> {
    let (number, hours) = match text.strip_suffix('d') {
        Some(number) => (number, 24),
        None => (text.strip_suffix('h')?, 1),
    };
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let hours = plain.then(|| number.parse::<u64>().ok()?.checked_mul(hours)).flatten()?;
    let time = Duration::from_secs(hours.checked_mul(3600)?);
    (SHORTEST..=LONGEST).contains(&time).then_some(time)
}

/// Reads a file of callers.
pub(crate) fn read_callers(path: &Path) -> Result<Vec<(Credential, Caller)>, ConfigError> {
    let file: CallersFile = parse(path, &read(path)?)?;
    let credential = |caller: CallerConfig| {
        let given = [
            caller.token_sha256.map(Credential::Token),
            caller.certificate_sha256.map(Credential::Certificate),
            caller.certificate_name.map(Credential::CertificateName),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(one), None) => Ok((one, Caller { name: caller.name, roles: caller.roles })),
            _ => Err(ConfigError::Value {
                key: "caller",
                found: caller.name,
                expected: "exactly one of token_sha256, certificate_sha256 and certificate_name",
                hint: "give a caller with two credentials two entries",
            }),
        }
    };
    file.caller.into_iter().map(credential).collect()
}

pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        ConfigError::Toml { path: path.to_owned(), message: format!("{at}{}", error.message()) }
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
