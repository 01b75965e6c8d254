//! One server that has a registry's images.

use std::path::PathBuf;

use reqwest::Url;

use crate::remote::error::RemoteError;

/// Where Docker Hub's API is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::remote) struct Endpoint {
    pub(in crate::remote) scheme: String,
    /// `host[:port]`.
    pub(in crate::remote) authority: String,
    /// Path before the repository, without slashes around it: `v2`.
    pub(super) prefix: String,
    pub(in crate::remote) roots: Vec<PathBuf>,
    pub(in crate::remote) identity: Vec<PathBuf>,
    /// Whether there is another one to ask if this one fails.
    pub(in crate::remote) mirror: bool,
    /// Whether it may say what a tag stands for.
    pub(super) resolves: bool,
}

impl Endpoint {
    pub(in crate::remote) fn registry(registry: &str, plain: bool) -> Self {
        let authority = match registry {
            "docker.io" | "index.docker.io" => DOCKER_HUB,
            other => other,
        };
        Self {
            scheme: if plain { "http" } else { "https" }.into(),
            authority: authority.into(),
            prefix: "v2".into(),
            roots: Vec::new(),
            identity: Vec::new(),
            mirror: false,
            resolves: true,
        }
    }

    /// Whether it may be asked for a path: a manifest by tag only where that is allowed.
    pub(in crate::remote) fn serves(&self, path: &str) -> bool {
        let by_tag = path.strip_prefix("manifests/").is_some_and(|name| !name.contains(':'));
        self.resolves || !by_tag
    }

    pub(in crate::remote) fn url(
        &self,
        repository: &str,
        path: &str,
        registry: &str,
    ) -> Result<Url, RemoteError> {
        // a mirror of several registries is told which one is meant (containerd, hosts.md, "ns")
        let query = if self.mirror { format!("?ns={registry}") } else { String::new() };
        let text = format!(
            "{}://{}/{}/{repository}/{path}{query}",
            self.scheme, self.authority, self.prefix
        );
        Url::parse(&text)
            .map_err(|error| RemoteError::Configuration { path: text, reason: error.to_string() })
    }
}
