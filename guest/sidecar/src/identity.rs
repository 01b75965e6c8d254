//! Who the pod is to a vault: an access token from the federated token of its service account, or from the machine's metadata service.
//!
//! | environment | meaning |
//! |---|---|
//! | `AZURE_KEY_VAULT_HOSTS` | vaults beside the clouds' own that may have the pod's token |
//! | `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`, `AZURE_FEDERATED_TOKEN_FILE` | workload identity, when all three are set |
//! | `AZURE_AUTHORITY_HOST` | who exchanges the federated token, `https://login.microsoftonline.com` |
//! | `AZURE_POD_IDENTITY_AUTHORITY_HOST` | metadata service, `http://169.254.169.254` |
//!
//! The token file is read for each exchange, since the kubelet replaces it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{SidecarError, chain, printable};
use crate::reports::read_limited;

/// More hosts that may have the pod's token, separated by commas: a host with its port, or with a dot in front the end of its name.
const VAULTS: &str = "AZURE_KEY_VAULT_HOSTS";
/// Vaults and managed HSMs of the clouds (Azure documentation, "Azure Key Vault DNS suffixes").
const CLOUD_VAULTS: [&str; 6] = [
    ".vault.azure.net",
    ".managedhsm.azure.net",
    ".vault.azure.cn",
    ".managedhsm.azure.cn",
    ".vault.usgovcloudapi.net",
    ".managedhsm.usgovcloudapi.net",
];

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// A token is not used in the last minutes of its life.
const MARGIN_S: u64 = 300;
/// Pauses between the three tries at the metadata service.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Workload { authority: String, tenant: String, client_id: String, token_file: PathBuf },
    Metadata { authority: String, client_id: String },
}

/// Gets access tokens and keeps them while they live.
pub struct IdentityClient {
    client: reqwest::Client,
    source: Source,
    /// Ends of the names of hosts that may have the pod's token.
    vaults: Vec<String>,
    kept: Mutex<HashMap<String, (u64, Zeroizing<String>)>>,
}

impl IdentityClient {
    /// By the environment; `client_id` (of the settings) names the identity at the metadata service.
    pub fn new(
        client: reqwest::Client,
        client_id: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let value = |name: &str| env(name).filter(|value| !value.is_empty());
        let host = |name: &str, otherwise: &str| {
            value(name).unwrap_or_else(|| otherwise.to_owned()).trim_end_matches('/').to_owned()
        };
        let workload = (
            value("AZURE_CLIENT_ID"),
            value("AZURE_TENANT_ID"),
            value("AZURE_FEDERATED_TOKEN_FILE"),
        );
        let source = match workload {
            (Some(client_id), Some(tenant), Some(file)) => Source::Workload {
                authority: host("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
                tenant,
                client_id,
                token_file: file.into(),
            },
            _ => Source::Metadata {
                authority: host("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://169.254.169.254"),
                client_id: client_id.to_owned(),
            },
        };
        let said = value(VAULTS).unwrap_or_default();
        let said =
            said.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned);
        let vaults = CLOUD_VAULTS.map(str::to_owned).into_iter().chain(said).collect();
        Self { client, source, vaults, kept: Mutex::default() }
    }

    /// The endpoint is the caller's word, or that of an image's annotation: the pod's token goes to vaults only.
    fn check_vault(&self, endpoint: &str) -> Result<(), SidecarError> {
        let host = endpoint.split('/').next().unwrap_or_default().to_ascii_lowercase();
        let is = |vault: &String| match vault.starts_with('.') {
            true => host.ends_with(vault.as_str()),
            false => host == *vault,
        };
        if self.vaults.iter().any(is) {
            return Ok(());
        }
        Err(SidecarError::Identity(format!(
            "{host} is no vault that may have this pod's token; hint: list it in {VAULTS}, or send access_token"
        )))
    }

    /// A token for the vault at `endpoint`.
    ///
    /// # Errors
    /// [`SidecarError::Identity`].
    pub async fn token(&self, endpoint: &str) -> Result<Zeroizing<String>, SidecarError> {
        self.check_vault(endpoint)?;
        let resource = match endpoint.contains("managedhsm") {
            true => "https://managedhsm.azure.net",
            false => "https://vault.azure.net",
        };
        let now = unix_s(SystemTime::now());
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, token)) =
                kept.get(resource).filter(|(expires, _)| now.saturating_add(MARGIN_S) < *expires)
            {
                return Ok(token.clone());
            }
        }
        let (expires, token) = match &self.source {
            Source::Workload { .. } => self.exchange(resource).await,
            Source::Metadata { .. } => self.metadata(resource).await,
        }
        .map_err(SidecarError::Identity)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(resource.to_owned(), (expires, token.clone()));
        Ok(token)
    }

    /// RFC 7523 section 2.2, as the known sidecar's library does it.
    async fn exchange(&self, resource: &str) -> Result<(u64, Zeroizing<String>), String> {
        let Source::Workload { authority, tenant, client_id, token_file } = &self.source else {
            return Err("no workload identity".to_owned());
        };
        let assertion = std::fs::read_to_string(token_file)
            .map_err(|error| format!("{}: {error}", token_file.display()))?;
        let assertion = Zeroizing::new(assertion);
        let form = form(&[
            ("client_assertion", assertion.trim()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", client_id),
            ("client_info", "1"),
            ("grant_type", "client_credentials"),
            ("scope", &format!("{resource}/.default")),
        ]);
        let url = format!("{authority}/{tenant}/oauth2/v2.0/token");
        let request = self
            .client
            .post(url)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form);
        ask(request).await.map_err(|(_, words)| words)
    }

    async fn metadata(&self, resource: &str) -> Result<(u64, Zeroizing<String>), String> {
        let Source::Metadata { authority, client_id } = &self.source else {
            return Err("no metadata service".to_owned());
        };
        let mut query = form(&[("api-version", "2018-02-01"), ("resource", resource)]);
        if !client_id.is_empty() {
            query = format!("{query}&{}", form(&[("client_id", client_id)]));
        }
        let url = format!("{authority}/metadata/identity/oauth2/token?{query}");
        let mut pauses = PAUSES.into_iter();
        loop {
            match ask(self.client.get(&url).header("Metadata", "true")).await {
                Ok(found) => return Ok(found),
                Err((again, words)) => match pauses.next().filter(|_| again) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(words),
                },
            }
        }
    }
}

/// One attempt: expiry and token, or whether another attempt may help, and words.
async fn ask(request: reqwest::RequestBuilder) -> Result<(u64, Zeroizing<String>), (bool, String)> {
    let answer = request.send().await.map_err(|error| (true, chain(&error)))?;
    let status = answer.status();
    let bytes = read_limited(answer, MAX_ANSWER_BYTES).await.map_err(|words| (true, words))?;
    let bytes = Zeroizing::new(bytes);
    if !status.is_success() {
        let again = matches!(status.as_u16(), 404 | 408 | 410 | 429) || status.is_server_error();
        let words = printable(&String::from_utf8_lossy(&bytes), 300);
        return Err((again, format!("token service answers {status}: {words}")));
    }
    let wrong = || (false, "answer of the token service holds no access_token".to_owned());
    let body: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let token = body.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = Zeroizing::new(token.ok_or_else(wrong)?.to_owned());
    // Numbers by one service, strings by the other; a token whose age is not known is used once.
    let lives = match body.get("expires_in") {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    };
    Ok((unix_s(SystemTime::now()).saturating_add(lives), token))
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = match reqwest::Url::parse("http://form.invalid") {
        Ok(url) => url,
        Err(_) => return String::new(),
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
