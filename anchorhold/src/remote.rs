//! A key service elsewhere, by its own routes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Client, Method};
use serde_json::Value;

use crate::cli::service::Target;
use crate::ui::failure;

/// The vault's API that is spoken.
const VERSION: &str = "7.4";
/// Time for one request; a backup takes longest.
const TIMEOUT: Duration = Duration::from_secs(300);

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
        let mut builder = Client::builder().timeout(TIMEOUT).https_only(true);
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

    /// One request; an answer that is a no becomes an error with the service's own words.
    /// Whether there is a key; an answer that does not say so is an error.
    pub(crate) async fn has_key(&self, path: &str) -> Result<bool> {
        match self.keys(Method::GET, path, None).await {
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<Absent>().is_some() => Ok(false),
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

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>> {
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
        let status = answer.status();
        let bytes = answer.bytes().await.context("answer of the key service was cut")?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        let error: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = error
            .pointer("/error/message")
            .and_then(Value::as_str)
            .unwrap_or("no reason was given");
        let text = format!("key service {} refused ({status}): {message}", self.url);
        Err(match status.as_u16() {
            404 => Absent(text).into(),
            401 => failure(text, "--token-file names the file with a token that the service knows"),
            _ => anyhow::anyhow!(text),
        })
    }
}

/// The service said that there is no such thing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Absent(String);

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
