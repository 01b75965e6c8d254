//! A token for the vault from the metadata service of the machine that the import runs on (Azure Instance Metadata Service, managed
//! identities).

use std::time::Duration;

use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

/// Where machines of Azure find their metadata service.
pub const METADATA_SERVICE: &str = "http://169.254.169.254";
/// Pauses between the three tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Time for one try.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody answers.
    #[error(
        "metadata service {address} does not answer\nhint: outside of Azure, give the token in key.akv.bearer_token or with --token-file"
    )]
    Silent {
        /// Which service.
        address: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// It answers something else than a token.
    #[error("metadata service {address} gives no token: {found}")]
    NoToken {
        /// Which service.
        address: String,
        /// What it said.
        found: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
}

/// A token of the machine's identity for the vault's kind; `client_id` chooses one of several identities.
///
/// # Errors
/// [`IdentityError`], after three tries.
pub async fn managed_identity_token(
    service: &str,
    managed_hsm: bool,
    client_id: Option<&str>,
) -> Result<Zeroizing<String>, IdentityError> {
    let resource = if managed_hsm { "managedhsm" } else { "vault" };
    let mut url = format!(
        "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2F{resource}.azure.net",
        service.trim_end_matches('/')
    );
    if let Some(id) = client_id {
        url.push_str("&client_id=");
        for byte in id.bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => url.push(byte.into()),
                other => url.push_str(&format!("%{other:02X}")),
            }
        }
    }
    let silent = |source| IdentityError::Silent { address: service.to_owned(), source };
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(silent)?;
    let mut pauses = PAUSES.into_iter();
    loop {
        let (again, error) = match ask(&client, &url, service).await {
            Ok(token) => return Ok(token),
            Err(failed) => failed,
        };
        match pauses.next().filter(|_| again) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

/// One try: the token, or whether another may help, and why not.
async fn ask(
    client: &reqwest::Client,
    url: &str,
    service: &str,
) -> Result<Zeroizing<String>, (bool, IdentityError)> {
    let address = || service.to_owned();
    let silent = |source| (true, IdentityError::Silent { address: address(), source });
    let answer = client.get(url).header("Metadata", "true").send().await.map_err(silent)?;
    let status = answer.status();
    let mut bytes = answer.bytes().await.map_err(silent)?.to_vec();
    let no_token = |found: String| IdentityError::NoToken { address: address(), found };
    if !status.is_success() {
        let again = status.as_u16() == 429 || status.is_server_error();
        let words: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|one| !one.is_control())
            .take(200)
            .collect();
        return Err((again, no_token(format!("{status} {words}"))));
    }
    let read: Result<Answer, _> = serde_json::from_slice(&bytes);
    bytes.zeroize();
    match read {
        Ok(answer) if !answer.access_token.is_empty() => Ok(Zeroizing::new(answer.access_token)),
        _ => Err((false, no_token("its answer has no access_token".into()))),
    }
}
