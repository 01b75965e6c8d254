//! Requests to registries: endpoints in turn, credentials when they are asked for, waits when the registry says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, RequestBuilder, Response, Url};

use super::auth::{Authorization, Tokens};
use super::error::RemoteError;
use super::hosts::{Endpoint, Hosts};
use super::retry::{self, Next};
use crate::credentials::{self, Stored};
use crate::images::Places;
use crate::name::Reference;

/// How long a registry may be silent.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// Longest part of an answer that is shown, bytes.
const MAX_MESSAGE_BYTES: u64 = 300;

/// Speaks to all registries.
pub(crate) struct Http {
    hosts: Hosts,
    tokens: Tokens,
    auth_file: Option<PathBuf>,
    clients: Mutex<BTreeMap<ClientKey, Client>>,
}

/// What connections may share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ClientKey {
    /// Certificate files that are trusted besides the system's.
    roots: Vec<PathBuf>,
    /// Certificate and key that the client shows.
    identity: Vec<PathBuf>,
    /// No TLS: roots need not be loaded.
    plain: bool,
    /// Never through a proxy.
    direct: bool,
}

/// One request: where, and what is wanted.
struct Ask<'a> {
    endpoint: &'a Endpoint,
    url: Url,
    accept: &'a str,
    offset: u64,
}

impl Http {
    pub(super) fn new(places: &Places) -> Self {
        Self {
            hosts: Hosts::new(places),
            tokens: Tokens::default(),
            auth_file: places.auth_file.clone(),
            clients: Mutex::default(),
        }
    }

    /// A whole answer of at most `max_bytes` bytes.
    pub(super) async fn get(
        &self,
        reference: &Reference,
        path: &str,
        accept: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RemoteError> {
        let response = self.open(reference, path, accept, 0).await?;
        let url = shown(response.url());
        let (bytes, whole) = read(response, max_bytes).await?;
        if whole { Ok(bytes) } else { Err(RemoteError::TooLong { url, expected: max_bytes }) }
    }

    /// An answer from an offset on, from the first endpoint that gives it; the registry itself is the last.
    pub(super) async fn open(
        &self,
        reference: &Reference,
        path: &str,
        accept: &str,
        offset: u64,
    ) -> Result<Response, RemoteError> {
        let endpoints = self.hosts.endpoints(reference.registry())?;
        let mut failures: Vec<String> = Vec::new();
        for endpoint in endpoints.iter().filter(|e| e.serves(path)) {
            match self.open_at(endpoint, reference, path, accept, offset).await {
                Err(error) if endpoint.mirror && error.is_endpoints_own() => {
                    failures.push(format!("{}: {error}", endpoint.authority));
                }
                Err(error) if !failures.is_empty() => {
                    let mirrors = failures.join("; ");
                    return Err(RemoteError::Mirrors { mirrors, source: Box::new(error) });
                }
                result => return result,
            }
        }
        let reason = "no host for this request".to_owned();
        Err(RemoteError::Configuration { path: reference.registry().into(), reason })
    }

    async fn open_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        path: &str,
        accept: &str,
        offset: u64,
    ) -> Result<Response, RemoteError> {
        let repository = reference.repository();
        let url = endpoint.url(repository, path, reference.registry())?;
        let ask = Ask { endpoint, url, accept, offset };
        let mut authorization = self.tokens.of(&endpoint.authority, repository);
        let mut stored = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let response = match self.send(&ask, authorization.as_ref()).await {
                Ok(response) => response,
                Err(error @ RemoteError::Send { .. }) => match retry::after_failure(attempts) {
                    Next::Again(wait) => {
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    _ => return Err(error),
                },
                Err(error) => return Err(error),
            };
            let status = response.status().as_u16();
            match status {
                200 if offset == 0 => return Ok(response),
                206 if offset > 0 && starts_at(response.headers(), offset) => return Ok(response),
                401 if stored.is_none() => {
                    let found = credentials::of(
                        self.auth_file.as_deref(),
                        &endpoint.authority,
                        repository,
                    )?;
                    let fresh =
                        self.tokens.obtain(self, endpoint, repository, &response, &found).await?;
                    (authorization, stored) = (fresh, Some(found));
                    attempts -= 1;
                    continue;
                }
                _ => {}
            }
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            match retry::after_status(status, retry_after, attempts) {
                Next::Again(wait) => tokio::time::sleep(wait).await,
                Next::TooLong(wait) => {
                    return Err(RemoteError::Limited { url: shown(&ask.url), status, wait });
                }
                Next::GiveUp => return Err(refusal(response, attempts, stored.as_ref()).await),
            }
        }
    }

    /// One request and its redirects. Credentials go to the endpoint's own host only.
    async fn send(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Response, RemoteError> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client(ask.endpoint, &url)?.get(url.clone());
            request = request.header(ACCEPT, ask.accept);
            if ask.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.offset));
            }
            let own = url.origin() == ask.url.origin();
            if let Some(Authorization(value)) = authorization.filter(|_| own) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = transmit(request, &url).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = redirected(&url, &response)?;
        }
        let (from, to) = (shown(&ask.url), shown(&url));
        Err(RemoteError::Elsewhere { from, to, reason: "too many redirects" })
    }

    /// The client for an address; made when it is first needed.
    pub(super) fn client(&self, endpoint: &Endpoint, url: &Url) -> Result<Client, RemoteError> {
        let key = ClientKey {
            roots: endpoint.roots.clone(),
            identity: endpoint.identity.clone(),
            plain: url.scheme() == "http",
            direct: is_loopback(url),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key)?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Sends a request; its failure never shows the address's query.
pub(super) async fn transmit(request: RequestBuilder, url: &Url) -> Result<Response, RemoteError> {
    request
        .send()
        .await
        .map_err(|source| RemoteError::Send { url: shown(url), source: source.without_url() })
}

/// At most `max_bytes` bytes of an answer, and whether that is all of it.
pub(super) async fn read(
    mut response: Response,
    max_bytes: u64,
) -> Result<(Vec<u8>, bool), RemoteError> {
    let url = shown(response.url());
    let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok((bytes, true)),
            Ok(Some(piece)) if bytes.len() + piece.len() <= max => bytes.extend_from_slice(&piece),
            Ok(Some(piece)) => {
                bytes.extend(piece.iter().take(max - bytes.len()));
                return Ok((bytes, false));
            }
            Err(source) => return Err(RemoteError::Send { url, source: source.without_url() }),
        }
    }
}

/// An address without what may be a secret in it.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn redirected(from: &Url, response: &Response) -> Result<Url, RemoteError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let refuse = |to: String, reason| RemoteError::Elsewhere { from: shown(from), to, reason };
    let to = location
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refuse(String::new(), "the redirect has no address"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(refuse(shown(&to), "it would leave TLS")),
    }
}

fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

async fn refusal(response: Response, attempts: u32, stored: Option<&Stored>) -> RemoteError {
    let (url, status) = (shown(response.url()), response.status().as_u16());
    let tried = stored.map_or_else(|| "no credentials: none were asked for".into(), Stored::shown);
    match status {
        401 | 403 => RemoteError::Denied { url, status, tried },
        404 => RemoteError::NotFound { url, tried },
        _ => {
            let message = read(response, MAX_MESSAGE_BYTES).await.unwrap_or_default().0;
            let message = String::from_utf8_lossy(&message).into_owned();
            RemoteError::Status { url, status, attempts, message }
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|host| host.is_loopback()),
        None => false,
    }
}

/// Proxies are taken from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, never for this machine itself.
fn build(key: &ClientKey) -> Result<Client, RemoteError> {
    let mut builder = Client::builder()
        .user_agent(concat!("anchorhold/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(TIMEOUT)
        .read_timeout(TIMEOUT)
        .http1_only();
    if key.direct {
        builder = builder.no_proxy();
    }
    if key.plain {
        // never used for TLS, so the system's roots need not be read
        builder = builder.tls_certs_only([]);
    } else {
        let mut roots = Vec::new();
        for path in &key.roots {
            let found = reqwest::Certificate::from_pem_bundle(&file(path)?)
                .map_err(|error| wrong(path, &error))?;
            if found.is_empty() {
                let reason = "has no certificate in PEM form".to_owned();
                return Err(RemoteError::Configuration {
                    path: path.display().to_string(),
                    reason,
                });
            }
            roots.extend(found);
        }
        builder = builder.tls_certs_merge(roots);
        if let Some(first) = key.identity.first() {
            let mut pem = Vec::new();
            for path in &key.identity {
                pem.extend(file(path)?);
                pem.push(b'\n');
            }
            let identity =
                reqwest::Identity::from_pem(&pem).map_err(|error| wrong(first, &error))?;
            builder = builder.identity(identity);
        }
    }
    builder.build().map_err(|source| RemoteError::Send { url: "HTTP client".into(), source })
}

fn file(path: &Path) -> Result<Vec<u8>, RemoteError> {
    std::fs::read(path).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, reason: &dyn std::fmt::Display) -> RemoteError {
    RemoteError::Configuration { path: path.display().to_string(), reason: reason.to_string() }
}
