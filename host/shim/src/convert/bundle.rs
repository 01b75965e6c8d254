//! config.json as containerd writes it: the parts that mean something to a guest, in their order.
//!
//! Source: OCI runtime specification 1.2, config.md and config-linux.md.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// Longest config.json that is read, bytes: four times the largest annotation set that Kubernetes allows, and the rest.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// Why a bundle's config.json cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Too large.
    #[error("config.json has {found} bytes, expected at most {MAX_BYTES}")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// Not of the specification's form.
    #[error("config.json")]
    Json(#[from] serde_json::Error),
}

/// config.json.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub(super) oci_version: String,
    pub(super) process: Option<Process>,
    pub(super) root: Option<Root>,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Mount>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) linux: Linux,
    pub(super) hooks: Option<serde_json::Value>,
}

/// `process`, of a container and of an exec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    pub(super) terminal: bool,
    pub(super) console_size: Option<ConsoleSize>,
    pub(super) user: User,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) capabilities: Capabilities,
    pub(super) no_new_privileges: bool,
    pub(super) oom_score_adj: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(super) struct ConsoleSize {
    pub(super) height: u32,
    pub(super) width: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    pub(super) bounding: Vec<String>,
    pub(super) effective: Vec<String>,
    pub(super) inheritable: Vec<String>,
    pub(super) permitted: Vec<String>,
    pub(super) ambient: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Root {
    pub(super) readonly: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Mount {
    pub(super) destination: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) options: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Linux {
    pub(super) sysctl: BTreeMap<String, String>,
    pub(super) resources: Resources,
    pub(super) cgroups_path: String,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) devices: Vec<Device>,
    pub(super) seccomp: Option<serde_json::Value>,
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    pub(super) memory: Memory,
    pub(super) cpu: Cpu,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) limit: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Cpu {
    pub(super) shares: u64,
    pub(super) quota: i64,
    pub(super) period: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Device {
    pub(super) path: String,
}

impl Spec {
    pub(super) fn namespace(&self, kind: &str) -> Option<&Namespace> {
        self.linux.namespaces.iter().find(|namespace| namespace.kind == kind)
    }

    /// The folders that the container's emptyDirs are on the node, those of which it mounts a part among them.
    pub fn volume_folders(&self) -> Vec<PathBuf> {
        self.mounts.iter().filter_map(|mount| super::mounts::volume_folder(&mount.source)).collect()
    }

    /// The kubelet's file for the container's termination message, and where the container sees it.
    pub fn termination_log(&self) -> Option<(PathBuf, String)> {
        let is_it = |mount: &&Mount| super::mounts::is_termination_log(&mount.source);
        let mount = self.mounts.iter().find(is_it)?;
        Some((PathBuf::from(&mount.source), mount.destination.clone()))
    }

    /// The pod's annotations that containerd passes on, and its own.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

/// Reads config.json. The second value names the fields that were not read, for the log.
///
/// # Errors
/// [`BundleError`].
pub fn parse(bytes: &[u8]) -> Result<(Spec, Vec<String>), BundleError> {
    if bytes.len() > MAX_BYTES {
        return Err(BundleError::TooLarge { found: bytes.len() });
    }
    let mut ignored = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let spec = serde_ignored::deserialize(&mut reader, |path| ignored.push(path.to_string()))?;
    reader.end()?;
    Ok((spec, ignored))
}

/// Reads the process of an exec, as containerd sends it.
///
/// # Errors
/// [`BundleError`].
pub fn parse_process(bytes: &[u8]) -> Result<Process, BundleError> {
    if bytes.len() > MAX_BYTES {
        return Err(BundleError::TooLarge { found: bytes.len() });
    }
    Ok(serde_json::from_slice(bytes)?)
}

pub(super) fn parse_resources(bytes: &[u8]) -> Result<Resources, BundleError> {
    Ok(serde_json::from_slice(bytes)?)
}
