//! What a pod says that containerd's spec has no place for, as an annotation that the generator writes and the runtime reads.
//!
//! The runtime puts it into its requests, where the policy compares it: a host that alters the annotation is denied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{FsGroupChange, Pod, Size, VolumeSource};

/// The annotation's name; its value is JSON of [`RuntimeHints`].
pub const RUNTIME_HINTS_ANNOTATION: &str = "anchorhold.dev/runtime-hints";

/// What the runtime cannot see in containerd's spec. Everything in it has Kubernetes' default where it is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeHints {
    /// `spec.shareProcessNamespace`: containerd tells it with the first container, which is after the sandbox was made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub share_process_namespace: bool,
    /// `sizeLimit` of emptyDirs by volume name: the kubelet keeps it to itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub size_limit_bytes: BTreeMap<String, u64>,
    /// `limits.ephemeral-storage` by container name, for those that have one: the kubelet measures it itself, outside of the VM.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_limit_bytes: BTreeMap<String, u64>,
    /// A port with the protocol SCTP: containerd's spec knows no ports.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sctp: bool,
    /// CPU that the containers may need at the same time, thousandths of a core: limits, and requests where there is no limit. The kubelet adds up limits
    /// alone, and before Kubernetes 1.23 it hands on nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_milli: u64,
    /// Memory likewise, bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
    /// Whether containers without limit or request for memory come on top of `memory_bytes`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub memory_is_open: bool,
    /// `fsGroupChangePolicy`: the kubelet acts on it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_group_change: Option<FsGroupChange>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RuntimeHints {
    /// The pod's hints; `None` for one that needs none.
    pub fn of(pod: &Pod) -> Option<Self> {
        let limits = pod.volumes.iter().filter_map(|volume| match volume.source {
            VolumeSource::EmptyDir { size_limit_bytes, .. } => {
                Some((volume.name.clone(), size_limit_bytes?))
            }
            VolumeSource::Files(_) => None,
        });
        let roots = pod.containers.iter().filter_map(|container| {
            Some((container.name.clone(), container.resources.root_limit_bytes()?))
        });
        let Size { cpu_milli, memory_bytes, memory_is_open } = Size::of(pod);
        let change = pod.security.fs_group.map(|group| group.change);
        let hints = Self {
            share_process_namespace: pod.share_process_namespace,
            size_limit_bytes: limits.collect(),
            storage_limit_bytes: roots.collect(),
            sctp: pod.speaks_sctp(),
            cpu_milli,
            memory_bytes,
            // a size of nothing is the node's default anyway
            memory_is_open: memory_is_open && memory_bytes > 0,
            fs_group_change: change.filter(|change| *change != FsGroupChange::Always),
        };
        (hints != Self::default()).then_some(hints)
    }

    /// Sum of the limits of volumes and of containers' roots, bytes.
    pub fn limited_bytes(&self) -> u64 {
        let limits = self.size_limit_bytes.values().chain(self.storage_limit_bytes.values());
        limits.fold(0, |sum, limit| sum.saturating_add(*limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, pod};
    use crate::{FsGroup, Medium, Volume};

    #[test]
    fn only_what_differs_from_the_defaults_is_said() {
        let mut pod = pod(vec![]);
        pod.security.fs_group = Some(FsGroup { gid: 1, change: FsGroupChange::Always });
        assert_eq!(RuntimeHints::of(&pod), None);
        pod.share_process_namespace = true;
        pod.security.fs_group = Some(FsGroup { gid: 1, change: FsGroupChange::OnRootMismatch });
        let source = VolumeSource::EmptyDir { medium: Medium::Disk, size_limit_bytes: Some(4096) };
        pod.volumes = vec![Volume { name: "a".into(), source }];
        let mut limited = container("app");
        limited.resources.storage_limit_bytes = Some(8192);
        limited.resources.cpu_request_milli = Some(1500);
        limited.resources.memory_limit_bytes = Some(64);
        let mut unlimited = container("none");
        unlimited.resources.storage_limit_bytes = Some(0);
        pod.containers = vec![limited, unlimited];
        let text = serde_json::to_string(&RuntimeHints::of(&pod)).unwrap();
        assert_eq!(
            text,
            r#"{"share_process_namespace":true,"size_limit_bytes":{"a":4096},"storage_limit_bytes":{"app":8192},"cpu_milli":1500,"memory_bytes":64,"memory_is_open":true,"fs_group_change":"on-root-mismatch"}"#
        );
        assert_eq!(RuntimeHints::of(&pod).unwrap().limited_bytes(), 4096 + 8192);
        let unknown = r#"{"share_process_namespace":true,"more":1}"#;
        assert!(serde_json::from_str::<RuntimeHints>(unknown).is_err());
    }
}
