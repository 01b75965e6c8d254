//! A key service elsewhere, by its own routes.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::cli::service::Target;
use crate::ui::{Hint, failure, plain};

/// The vault's API that is spoken.
const VERSION: &str = "7.4";
/// Time for one request; a backup takes longest.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest answer that is kept in memory, bytes: a page of the decision log is longest.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// Longest backup, bytes.
const MAX_BACKUP_BYTES: u64 = 64 * 1024 * 1024 * 1024;

pub(crate) struct Remote {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Remote {
    pub(crate) fn new(url: &str, target: &Target) -> Result<Self> {
        if !url.starts_with("https://") {
            return Err(failure(
                format!("--service is {url:?}, expected an https address"),
                "keys do not go over plain http",
            ));
        }
        // A redirection would lead keys and tokens to whomever the service names.
        let client = Client::builder().timeout(TIMEOUT).https_only(true);
        let mut builder = client.redirect(Policy::none());
        if let Some(path) = &target.ca {
            let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem);
            builder = builder.tls_certs_only(
                roots.with_context(|| format!("certificates in {}", path.display()))?,
            );
        }
        let token = target.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self { client: builder.build()?, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// The same service, called with another token.
    pub(crate) fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// One request of the vault's; `path` begins behind `/keys`.
    pub(crate) async fn keys(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.json(method, &format!("/keys{path}{joint}api-version={VERSION}"), body).await
    }

    /// One request, one JSON answer.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer)
            .with_context(|| format!("answer of {}{path} is not JSON", self.url))
    }

    /// Whether there is a key; an answer that does not say so is an error.
    pub(crate) async fn has_key(&self, path: &str) -> Result<bool> {
        match self.keys(Method::GET, path, None).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The items of all pages of a list of keys or versions.
    pub(crate) async fn pages(&self, path: &str) -> Result<Vec<Value>> {
        let (mut items, mut query) = (Vec::new(), String::new());
        loop {
            let mut page = self.keys(Method::GET, &format!("{path}{query}"), None).await?;
            if let Value::Array(more) = page["value"].take() {
                items.extend(more);
            }
            // Of the next page's address only where to go on is taken: a service does not send its clients elsewhere.
            let next = page["nextLink"].as_str().and_then(|next| next.split_once("$skiptoken="));
            match next {
                Some((_, skip)) => query = format!("?$skiptoken={skip}"),
                None => return Ok(items),
            }
        }
    }

    /// One request; an answer that is a no becomes an error with the service's own words.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let answer = self.answer(method, path, body).await?;
        self.copy(answer, MAX_ANSWER_BYTES, &mut bytes).await?;
        Ok(bytes)
    }

    /// The service's backup.
    pub(crate) async fn backup(&self, out: &mut impl Write) -> Result<()> {
        let answer = self.answer(Method::GET, "/v1/backup", None).await?;
        self.copy(answer, MAX_BACKUP_BYTES, out).await
    }

    async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("key service {} does not answer", self.url))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.refusal(answer).await),
        }
    }

    async fn refusal(&self, answer: Response) -> anyhow::Error {
        let status = answer.status();
        let mut bytes = Vec::new();
        let copied = self.copy(answer, MAX_ANSWER_BYTES, &mut bytes).await;
        let error: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = error.pointer("/error/message").and_then(Value::as_str);
        let message = match &copied {
            Ok(()) => message.map_or_else(|| "no reason was given".to_owned(), plain),
            Err(error) => format!("{error:#}"),
        };
        let text = format!("key service {} refused ({status}): {message}", self.url);
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                "--token-file names the file with a token that the service knows"
            }
            status if status.is_redirection() => "--service has to be the service's own address",
            _ => return Refused { text, status }.into(),
        };
        anyhow::Error::new(Hint(hint.to_owned())).context(Refused { text, status })
    }

    async fn copy(&self, mut answer: Response, limit: u64, out: &mut impl Write) -> Result<()> {
        let mut left = limit;
        while let Some(piece) = answer.chunk().await.context("answer of the key service was cut")? {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            left = left
                .checked_sub(length)
                .with_context(|| format!("answer of {} has more than {limit} bytes", self.url))?;
            out.write_all(&piece).context("writing the answer of the key service")?;
        }
        Ok(())
    }
}

/// The service's no.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    text: String,
    status: StatusCode,
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// Whether it is certain that the service did nothing: it said so, or was never reached. After anything else it may have done what was asked.
pub(crate) fn did_nothing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>().map(|refused| refused.status);
    let refused = refused.is_some_and(|status| !status.is_server_error());
    let unreached = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
    refused || unreached
}

fn read_token(path: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// A key's name as one segment of an address.
pub(crate) fn segment(name: &str) -> Result<String> {
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte));
    match plain {
        // one segment of the path, whatever is in the name
        true => Ok(name.replace('/', "%2F")),
        false => Err(failure(
            format!("key name {name:?} cannot be used over --service"),
            "names have letters, digits, dashes, dots, underscores and slashes",
        )),
    }
}
