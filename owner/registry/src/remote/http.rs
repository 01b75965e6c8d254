//! Requests to registries: endpoints in turn, credentials when they are asked for, waits when the registry says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};

use super::auth::{Authorization, Tokens};
use super::error::RemoteError;
use super::hosts::{Endpoint, Hosts};
use super::retry::{self, Next};
use crate::credentials;
use crate::images::Places;
use crate::name::Reference;

mod answer;
mod client;

pub(super) use answer::{read, shown};
use answer::{redirected, refusal, starts_at};
use client::ClientKey;

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Speaks to all registries.
pub(crate) struct Http {
    hosts: Hosts,
    tokens: Tokens,
    auth_file: Option<PathBuf>,
    clients: Mutex<BTreeMap<ClientKey, Client>>,
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
        let key = ClientKey::of(endpoint, url);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = key.build()?;
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
