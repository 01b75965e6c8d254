//! What containerd's annotations say: which pod a container belongs to, and what its owner tells the runtime.

use std::collections::{BTreeMap, BTreeSet};

use ah_pod::{RUNTIME_HINTS_ANNOTATION, RuntimeHints};

use super::bundle::Spec;

/// containerd's CRI plugin (`pkg/cri/annotations`).
pub(super) const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
pub(super) const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
pub(super) const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
pub(super) const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
pub(super) const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
pub(super) const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
pub(super) const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// Kata runtime (`pkg/annotations`).
pub(super) const KATA_BUNDLE: &str = "io.katacontainers.pkg.oci.bundle_path";
pub(super) const KATA_TYPE: &str = "io.katacontainers.pkg.oci.container_type";

/// Containers that see the release socket, names separated by commas: the owner's own annotation.
const RELEASE_SOCKET: &str = "anchorhold.dev/release-socket";

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The pod's sandbox.
    Sandbox,
    /// A container in a sandbox.
    Container,
    /// No pod at all: `ctr run`.
    Alone,
}

/// The pod's UID, where a cluster made the pod.
pub fn pod_uid(spec: &Spec) -> Option<&str> {
    spec.annotations.get(SANDBOX_UID).map(String::as_str)
}

/// What the container is to its pod.
pub fn kind(spec: &Spec) -> Kind {
    match spec.annotations.get(CONTAINER_TYPE).map(String::as_str) {
        Some("sandbox") => Kind::Sandbox,
        Some(_) => Kind::Container,
        None => Kind::Alone,
    }
}

/// The sandbox that the container belongs to; `None` for one without a pod.
pub fn sandbox_id(spec: &Spec) -> Option<&str> {
    spec.annotations.get(SANDBOX_ID).map(String::as_str)
}

/// Why the pod's hints cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("annotation {RUNTIME_HINTS_ANNOTATION}")]
pub struct HintsError(#[from] serde_json::Error);

/// What the pod says that containerd's spec has no place for. The policy decides whether it is true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Names of containers with the release socket.
    pub release_socket: BTreeSet<String>,
    /// The generator's.
    pub runtime: RuntimeHints,
}

pub(super) fn hints(spec: &Spec) -> Result<Hints, HintsError> {
    let runtime = match spec.annotations.get(RUNTIME_HINTS_ANNOTATION) {
        Some(text) => serde_json::from_str(text)?,
        None => RuntimeHints::default(),
    };
    let names = spec.annotations.get(RELEASE_SOCKET).map(String::as_str).unwrap_or_default();
    Ok(Hints {
        release_socket: names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(String::from)
            .collect(),
        runtime,
    })
}

/// The annotations that the guest is told: containerd's about the container, and Kata's two.
pub(super) fn told(
    spec: &Spec,
    container_id: &str,
    kata_type: &str,
    own: &[&str],
) -> BTreeMap<String, String> {
    let common = [SANDBOX_ID, SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID, CONTAINER_TYPE];
    let kept = common.iter().chain(own).filter_map(|key| {
        let value = spec.annotations.get(*key)?;
        Some(((*key).to_owned(), value.clone()))
    });
    let bundle = format!("{}/{container_id}", ah_pod::shape::BUNDLE_DIR);
    kept.chain([(KATA_BUNDLE.to_owned(), bundle), (KATA_TYPE.to_owned(), kata_type.to_owned())])
        .collect()
}
