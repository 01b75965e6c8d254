//! What holds whatever the policy says: where a root can be, what it can be made of, what can be bound into a container.
//!
//! The policy decides which layers, files and volumes; these checks decide what a layer, a file and a volume are. A policy that was
//! written carelessly (an unanchored pattern, a forgotten field) must not turn files that the host copied in into a container's
//! root, or the agent's own files into a mount.

mod storages;

use std::path::{Component, Path, PathBuf};

use ah_agent_api::agent::CreateContainerRequest;
use ah_agent_api::oci;
use ah_container::{ContainerId, Layout, check_settings};
use ah_release::SOCKET_PATH as RELEASE_SOCKET;
use ah_rootfs::LayerSource;

use self::storages::Found;
use crate::failure::Failure;

const CRI_TYPE: &str = "io.kubernetes.cri.container-type";
const KATA_TYPE: &str = "io.katacontainers.pkg.oci.container_type";
/// Most folders between a volume and the part of it that is mounted, the volume counted.
const MAX_PART_DEPTH: usize = 32;

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sandbox itself: no root, no process.
    Sandbox,
    /// A container of an image.
    Workload,
}

/// A create request after the checks.
#[derive(Debug)]
pub struct Plan {
    /// The container.
    pub id: ContainerId,
    /// What it is.
    pub kind: Kind,
    /// The root's layers, top first; empty for the sandbox.
    pub layers: Vec<LayerSource>,
    /// Most bytes that the container may write into its root; none for what the pod's containers without a limit share.
    pub root_bytes: Option<u64>,
    /// Volumes, made before the container.
    pub volumes: Vec<Volume>,
    /// Mounts of a part of such a volume.
    pub parts: Vec<VolumePart>,
}

/// A mount whose source is a folder or file in a volume (`subPath`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePart {
    /// Index into the request's mounts.
    pub mount: usize,
    /// The volume's own folder.
    pub volume: PathBuf,
    /// Names from there to the part.
    pub names: Vec<String>,
}

/// A volume that lives as long as the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Below the sandbox's folder for volumes.
    pub folder: PathBuf,
    /// Where it is to be.
    pub medium: Medium,
    /// Most bytes that it takes.
    pub size_bytes: Option<u64>,
    /// Permissions, up to 0o7777.
    pub mode: Option<u32>,
    /// Group that owns it.
    pub group: Option<u32>,
}

/// Where a volume is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// In the guest's memory.
    Memory,
    /// On the scratch disk; in memory where the host attached none.
    Disk,
}

/// Checks the request's shape.
///
/// # Errors
/// [`Failure::Denied`] naming the field.
pub fn plan(request: &CreateContainerRequest, layout: &Layout) -> Result<Plan, Failure> {
    let id = ContainerId::parse(&request.container_id)
        .map_err(|e| Failure::refused(format!("container_id: {e}")))?;
    let spec =
        request.OCI.as_ref().ok_or_else(|| Failure::refused("OCI: found none, expected one"))?;
    refuse_unused(request)?;
    let kind = kind(spec)?;
    let root = layout.root(&id);
    check_root(spec, &root)?;
    if kind == Kind::Sandbox {
        check_sandbox_settings(spec)?;
    }
    let Found { layers, root_bytes, volumes } =
        storages::storages(&request.storages, kind, &root, layout)?;
    let parts = check_binds(spec, layout)?;
    Ok(Plan { id, kind, layers, root_bytes, volumes, parts })
}

/// Parts of the request that this guest has no effect for.
fn refuse_unused(request: &CreateContainerRequest) -> Result<(), Failure> {
    let none = |field: &str, fine: bool| match fine {
        true => Ok(()),
        false => Err(Failure::refused(format!("{field}: found a value, expected none"))),
    };
    none("devices", request.devices.is_empty())?;
    none("shared_mounts", request.shared_mounts.is_empty())?;
    none("string_user", request.string_user.is_none())?;
    none("stdin_port, stdout_port, stderr_port", {
        request.stdin_port == 0 && request.stdout_port == 0 && request.stderr_port == 0
    })?;
    let exec_id = request.exec_id.is_empty() || request.exec_id == request.container_id;
    none("exec_id", exec_id)
}

/// By the annotations of containerd and Kata, which must agree; a workload when there is neither.
fn kind(spec: &oci::Spec) -> Result<Kind, Failure> {
    let of = |key: &str, sandbox: &str, container: &str| match spec.Annotations.get(key) {
        None => Ok(None),
        Some(text) if text == sandbox => Ok(Some(Kind::Sandbox)),
        Some(text) if text == container => Ok(Some(Kind::Workload)),
        Some(text) => Err(Failure::refused(format!(
            "annotation {key}: found {text:?}, expected {sandbox} or {container}"
        ))),
    };
    let cri = of(CRI_TYPE, "sandbox", "container")?;
    let kata = of(KATA_TYPE, "pod_sandbox", "pod_container")?;
    match (cri, kata) {
        (Some(a), Some(b)) if a != b => Err(Failure::refused(format!(
            "annotations {CRI_TYPE} and {KATA_TYPE} name different kinds of container"
        ))),
        (a, b) => Ok(a.or(b).unwrap_or(Kind::Workload)),
    }
}

/// The sandbox has no process: of what its spec asks of the kernel, the settings are carried out, the rest would be left undone in
/// silence.
fn check_sandbox_settings(spec: &oci::Spec) -> Result<(), Failure> {
    if let Some(linux) = spec.Linux.as_ref() {
        check_settings(&linux.Sysctl).map_err(|e| Failure::refused(format!("OCI.{e}")))?;
    }
    match spec.Hooks.is_some() {
        true => Err(Failure::refused("OCI.Hooks: found hooks, expected none")),
        false => Ok(()),
    }
}

/// Compared as text: a path that only resolves to the root is not the root's path.
fn check_root(spec: &oci::Spec, root: &Path) -> Result<(), Failure> {
    let found = spec.Root.as_ref().map_or("", |r| r.Path.as_str());
    if root.to_str() == Some(found) {
        Ok(())
    } else {
        Err(Failure::refused(format!("OCI.Root.Path: found {found:?}, expected {root:?}")))
    }
}

/// Every bind's source lies in a place that the agent fills itself. Gives those that are a part of a volume.
fn check_binds(spec: &oci::Spec, layout: &Layout) -> Result<Vec<VolumePart>, Failure> {
    let shared = layout.kata().join("shared/containers");
    let shm = layout.kata().join("sandbox/shm");
    let ephemeral = layout.kata().join("sandbox/ephemeral");
    let mut parts = Vec::new();
    for (index, mount) in spec.Mounts.iter().enumerate().filter(|(_, m)| m.type_ == "bind") {
        let source = Path::new(&mount.source);
        let plain = mount.source.starts_with('/')
            && !mount.source.contains("//")
            && !mount.source.ends_with('/')
            // Path drops "." components in silence.
            && mount.source.split('/').all(|c| c != ".")
            && source.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        let below = |base: &Path| {
            source.strip_prefix(base).is_ok_and(|rest| rest.components().next().is_some())
        };
        // The volume's own folder is the guest's alone. What lies in it is the containers', and a running one could put a link in a
        // part's place between the check for links and the mount: a part is held by its descriptor and bound from there.
        let in_volume = source.strip_prefix(&ephemeral).ok().and_then(names);
        let volume = in_volume.as_ref().is_some_and(|names| names.len() <= MAX_PART_DEPTH);
        let fine =
            plain && (below(&shared) || source == shm || volume || mount.source == RELEASE_SOCKET);
        if !fine {
            return Err(Failure::refused(format!(
                "OCI.Mounts: {:?} comes from {:?}, expected a copied file, the sandbox's shared memory, a volume or the release socket",
                mount.destination, mount.source
            )));
        }
        let inside = mount.destination == RELEASE_SOCKET;
        if (mount.source == RELEASE_SOCKET) != inside {
            return Err(Failure::refused(format!(
                "OCI.Mounts: {:?} from {:?}: the release socket is bound to its own path only",
                mount.destination, mount.source
            )));
        }
        if let Some([volume, rest @ ..]) = in_volume.as_deref().filter(|names| names.len() > 1) {
            let names = rest.iter().map(|name| (*name).to_owned()).collect();
            parts.push(VolumePart { mount: index, volume: ephemeral.join(volume), names });
        }
    }
    Ok(parts)
}

/// The components of a relative path without `..`; none of an empty one.
fn names(path: &Path) -> Option<Vec<&str>> {
    let names: Option<Vec<&str>> = path
        .components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    names.filter(|names| !names.is_empty())
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
