//! Volumes: what the pod has, and the files that the node writes for one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::HostFact;

/// `spec.volumes[*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Name, a DNS label.
    pub name: String,
    /// What it is.
    pub source: VolumeSource,
}

/// The kinds of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeSource {
    /// `emptyDir`, which lives in the guest's memory or on its scratch disk.
    EmptyDir {
        /// `medium`.
        medium: Medium,
        /// `sizeLimit`.
        size_limit_bytes: Option<u64>,
    },
    /// `configMap`, `secret`, `downwardAPI` and `projected`: files that the node writes and the runtime copies in.
    Files(FileVolume),
}

/// `emptyDir.medium`. No disk of the host holds plain text of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// Unset: on the scratch disk, which the guest encrypts.
    Disk,
    /// `Memory`: in the guest's memory.
    Memory,
}

/// A volume of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileVolume {
    /// The files that the owner knows of, by path, each path once.
    pub files: Vec<VolumeFile>,
    /// The owner's choice to let the host say which other files there are and what they hold.
    pub unpinned: Option<Unpinned>,
}

/// Files of a volume that the host chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpinned {
    /// The objects whose files they are, as the owner named them: `configMap/NAME`, `secret/NAME`.
    pub objects: Vec<String>,
    /// Permissions of such a file.
    pub mode: u32,
}

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// Path in the volume: relative, without empty parts, `.` and `..`.
    pub path: String,
    /// Permissions, up to 0o777.
    pub mode: u32,
    /// What it holds.
    pub content: FileContent,
}

/// What a volume's file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileContent {
    /// These bytes: the policy has their digest.
    Fixed(FileBytes),
    /// A fact that only the cluster knows, alone: bounded by its kind.
    Host(HostFact),
    /// Such a fact behind a text of the owner's: the name of a StatefulSet's pod.
    Behind {
        /// The owner's.
        before: String,
        /// The cluster's.
        fact: HostFact,
    },
    /// What the host likes, up to 1 MiB; the text says what should be there.
    Free(String),
    /// A service account's token: as `Free`, with the owner and the permissions that the kubelet gives it.
    Token,
}

/// The bytes of a file. They are never printed: a Secret's are among them.
#[derive(Clone, PartialEq, Eq)]
pub struct FileBytes(pub Vec<u8>);

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({} bytes)", self.0.len())
    }
}

/// In base64, so that no content reads as a text of the pod.
impl Serialize for FileBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for FileBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}
