//! The form of `hosts.toml` (containerd, hosts.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

/// `hosts.toml`. A key that is not here is refused: it could be one that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostsFile {
    pub(super) server: Option<String>,
    #[serde(default)]
    pub(super) host: BTreeMap<String, Spanned<Host>>,
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) ca: Option<OneOrMore>,
    pub(super) client: Option<Client>,
    pub(super) skip_verify: Option<bool>,
    pub(super) override_path: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) ca: Option<OneOrMore>,
    pub(super) client: Option<Client>,
    pub(super) skip_verify: Option<bool>,
    pub(super) override_path: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Client {
    One(PathBuf),
    Pairs(Vec<Vec<PathBuf>>),
}
