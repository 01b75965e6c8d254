//! Where the requests for a registry go: itself, after its mirrors; and whose certificates are believed there.
//!
//! Read are the folders that docker, podman and containerd have (`certs.d/<registry>/`): `*.crt` is a CA, `*.cert` with
//! `*.key` what the client shows, and `hosts.toml` lists mirrors in their order (containerd, hosts.md).

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Url;
use toml::Spanned;

use super::error::RemoteError;
use crate::images::Places;

mod endpoint;
mod file;

pub(super) use endpoint::Endpoint;
use file::{Client, Host, HostsFile, OneOrMore};

/// What is configured for all registries.
pub(super) struct Hosts {
    plain_http: Vec<String>,
    roots: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Hosts {
    pub(super) fn new(places: &Places) -> Self {
        Self {
            plain_http: places.plain_http.clone(),
            roots: places.ca.clone(),
            folders: places.registry_folders.clone(),
        }
    }

    /// The servers for a registry, in the order in which they are asked.
    pub(super) fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, RemoteError> {
        let mut own = Endpoint::registry(registry, self.is_plain(registry));
        own.roots.clone_from(&self.roots);
        let mut mirrors = Vec::new();
        for folder in &self.folders {
            let folder = folder.join(registry);
            self.certificates(&folder, &mut own)?;
            let path = folder.join("hosts.toml");
            let Some(text) = read_if_there(&path)? else { continue };
            let file: HostsFile =
                toml::from_str(&text).map_err(|error| wrong(&path, error.message()))?;
            self.apply(&path, file, &mut own, &mut mirrors)?;
        }
        mirrors.push(own);
        Ok(mirrors)
    }

    fn apply(
        &self,
        path: &Path,
        file: HostsFile,
        own: &mut Endpoint,
        mirrors: &mut Vec<Endpoint>,
    ) -> Result<(), RemoteError> {
        let mut hosts: Vec<(String, Spanned<Host>)> = file.host.into_iter().collect();
        hosts.sort_by_key(|(_, host)| host.span().start);
        for (url, host) in hosts {
            let host = host.into_inner();
            let mut endpoint = self.endpoint(path, &url, host.override_path)?;
            endpoint.mirror = true;
            self.settings(path, &mut endpoint, host)?;
            mirrors.push(endpoint);
        }
        if let Some(server) = file.server {
            let server = self.endpoint(path, &server, file.override_path)?;
            (own.scheme, own.authority, own.prefix) =
                (server.scheme, server.authority, server.prefix);
        }
        let (ca, client, skip_verify) = (file.ca, file.client, file.skip_verify);
        let (capabilities, override_path) = (file.capabilities, None);
        self.settings(path, own, Host { capabilities, ca, client, skip_verify, override_path })
    }

    fn endpoint(
        &self,
        path: &Path,
        text: &str,
        override_path: Option<bool>,
    ) -> Result<Endpoint, RemoteError> {
        let with_scheme =
            if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url =
            Url::parse(&with_scheme).map_err(|_| wrong(path, format!("{text:?} is no address")))?;
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(wrong(path, format!("{text:?} has no host"))),
        };
        let plain = url.scheme() == "http";
        if plain && !self.is_plain(&authority) {
            let reason = format!("{text:?} has no TLS, which needs --plain-http {authority}");
            return Err(wrong(path, reason));
        }
        let mut endpoint = Endpoint::registry(&authority, plain);
        let own = url.path().trim_matches('/');
        endpoint.prefix = match (own, override_path) {
            (own, Some(true)) => own.into(),
            ("", _) => "v2".into(),
            (own, _) if own == "v2" || own.ends_with("/v2") => own.into(),
            (own, _) => format!("{own}/v2"),
        };
        endpoint.roots.clone_from(&self.roots);
        Ok(endpoint)
    }

    fn settings(
        &self,
        path: &Path,
        endpoint: &mut Endpoint,
        host: Host,
    ) -> Result<(), RemoteError> {
        if host.skip_verify == Some(true) {
            let reason = "skip_verify is refused: name the registry's CA with \"ca\" instead";
            return Err(wrong(path, reason));
        }
        let folder = path.parent().unwrap_or(path);
        match host.ca {
            Some(OneOrMore::One(file)) => endpoint.roots.push(folder.join(file)),
            Some(OneOrMore::More(files)) => {
                endpoint.roots.extend(files.iter().map(|file| folder.join(file)));
            }
            None => {}
        }
        match host.client {
            Some(Client::One(file)) => endpoint.identity = vec![folder.join(file)],
            Some(Client::Pairs(pairs)) => {
                let first = pairs.first().map(Vec::as_slice).unwrap_or_default();
                endpoint.identity = first.iter().map(|file| folder.join(file)).collect();
            }
            None => {}
        }
        if let Some(capabilities) = host.capabilities {
            endpoint.resolves = capabilities.iter().any(|name| name == "resolve");
        }
        Ok(())
    }

    /// Certificates as docker and podman keep them.
    fn certificates(&self, folder: &Path, endpoint: &mut Endpoint) -> Result<(), RemoteError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => endpoint.roots.push(file),
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !key.is_file() {
                        return Err(wrong(&file, "there is no key beside it"));
                    }
                    endpoint.identity = vec![file, key];
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_plain(&self, authority: &str) -> bool {
        self.plain_http.iter().any(|name| name == authority)
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, RemoteError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(path, error)),
    }
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> RemoteError {
    RemoteError::Configuration { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
#[path = "hosts/tests.rs"]
mod tests;
