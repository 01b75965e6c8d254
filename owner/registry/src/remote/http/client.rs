//! Clients: what they believe, what they show, and through what they go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use crate::remote::error::RemoteError;
use crate::remote::hosts::Endpoint;

/// How long a registry may be silent.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What connections may share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    /// Certificate files that are trusted besides the system's.
    roots: Vec<PathBuf>,
    /// Certificate and key that the client shows.
    identity: Vec<PathBuf>,
    /// No TLS: roots need not be loaded.
    plain: bool,
    /// Never through a proxy.
    direct: bool,
}

impl ClientKey {
    pub(super) fn of(endpoint: &Endpoint, url: &Url) -> Self {
        Self {
            roots: endpoint.roots.clone(),
            identity: endpoint.identity.clone(),
            plain: url.scheme() == "http",
            direct: is_loopback(url),
        }
    }

    /// Proxies are taken from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, never for this machine itself.
    pub(super) fn build(&self) -> Result<Client, RemoteError> {
        let mut builder = Client::builder()
            .user_agent(concat!("anchorhold/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .http1_only();
        if self.direct {
            builder = builder.no_proxy();
        }
        builder = match self.plain {
            // never used for TLS, so the system's roots need not be read
            true => builder.tls_certs_only([]),
            false => self.shown(self.believed(builder)?)?,
        };
        builder.build().map_err(|source| RemoteError::Send { url: "HTTP client".into(), source })
    }

    /// The system's roots and these.
    fn believed(&self, builder: ClientBuilder) -> Result<ClientBuilder, RemoteError> {
        let mut roots = Vec::new();
        for path in &self.roots {
            let found = reqwest::Certificate::from_pem_bundle(&file(path)?)
                .map_err(|error| wrong(path, &error))?;
            if found.is_empty() {
                return Err(wrong(path, &"has no certificate in PEM form"));
            }
            roots.extend(found);
        }
        Ok(builder.tls_certs_merge(roots))
    }

    /// Certificate and key, where the registry wants to see them.
    fn shown(&self, builder: ClientBuilder) -> Result<ClientBuilder, RemoteError> {
        let Some(first) = self.identity.first() else { return Ok(builder) };
        let mut pem = Vec::new();
        for path in &self.identity {
            pem.extend(file(path)?);
            pem.push(b'\n');
        }
        let identity = reqwest::Identity::from_pem(&pem).map_err(|error| wrong(first, &error))?;
        Ok(builder.identity(identity))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|host| host.is_loopback()),
        None => false,
    }
}

fn file(path: &Path) -> Result<Vec<u8>, RemoteError> {
    std::fs::read(path).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, reason: &dyn std::fmt::Display) -> RemoteError {
    RemoteError::Configuration { path: path.display().to_string(), reason: reason.to_string() }
}
