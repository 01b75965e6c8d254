//! What holds whatever the policy says: where a root can be, what it can be made of, what can be bound into a container.
//!
//! The policy decides which layers, files and volumes; these checks decide what a layer, a file and a volume are. A policy that was
//! written carelessly (an unanchored pattern, a forgotten field) must not turn files that the host copied in into a container's
//! root, or the agent's own files into a mount.

use std::path::{Component, Path, PathBuf};

use ah_agent_api::agent::{CreateContainerRequest, Storage};
use ah_agent_api::oci;
use ah_container::{ContainerId, Layout, check_settings};
use ah_release::SOCKET_PATH as RELEASE_SOCKET;
use ah_rootfs::{LayerSource, PciPath};
use ah_verity::VerityInfo;

use crate::failure::Failure;

const CRI_TYPE: &str = "io.kubernetes.cri.container-type";
const KATA_TYPE: &str = "io.katacontainers.pkg.oci.container_type";
const ROOT_HASH: &str = "X-kata.dmverity.roothash=";
const SALT: &str = "X-kata.dmverity.salt=";
const HASH_OFFSET: &str = "X-kata.dmverity.hashoffset=";
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
    /// Volumes in guest memory, made before the container.
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

/// A tmpfs that lives as long as the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Below the sandbox's folder for volumes.
    pub folder: PathBuf,
    /// tmpfs options, checked.
    pub options: Vec<String>,
    /// Group that owns it.
    pub group: Option<u32>,
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
    let (layers, volumes) = storages(&request.storages, kind, &root, layout)?;
    let parts = check_binds(spec, layout)?;
    Ok(Plan { id, kind, layers, volumes, parts })
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

fn storages(
    storages: &[Storage],
    kind: Kind,
    root: &Path,
    layout: &Layout,
) -> Result<(Vec<LayerSource>, Vec<Volume>), Failure> {
    let mut layers = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    let mut overlays = 0_usize;
    let mut volumes: Vec<Volume> = Vec::new();
    for storage in storages {
        match storage.driver.as_str() {
            "blk" if overlays == 0 => {
                let layer = layer(storage, layout)?;
                folders.push(storage.mount_point.clone());
                layers.push(layer);
            }
            "blk" => {
                return Err(Failure::refused(
                    "storages: a layer follows the overlay that should have it",
                ));
            }
            "overlayfs" => {
                overlay(storage, root, &folders)?;
                overlays = overlays.saturating_add(1);
            }
            "ephemeral" => volumes.push(volume(storage, layout)?),
            other => {
                return Err(Failure::refused(format!(
                    "storages.driver: found {other:?}, expected blk, overlayfs or ephemeral"
                )));
            }
        }
    }
    match (kind, layers.len(), overlays) {
        (Kind::Sandbox, 0, 0) | (Kind::Workload, 1.., 1) => Ok((layers, volumes)),
        (Kind::Sandbox, ..) => {
            Err(Failure::refused("storages: the sandbox has no root, found layers for one"))
        }
        (Kind::Workload, found, overlays) => Err(Failure::refused(format!(
            "storages: found {found} layers and {overlays} overlays, expected at least one layer and one overlay: \
             a container's root is made of verified layers only"
        ))),
    }
}

fn layer(storage: &Storage, layout: &Layout) -> Result<LayerSource, Failure> {
    let refused = |text: String| Failure::refused(format!("storages (layer): {text}"));
    if storage.fstype != "erofs" || !storage.driver_options.is_empty() || storage.fs_group.is_some()
    {
        return Err(refused(format!(
            "found fstype {:?}, driver_options or fs_group, expected erofs and none",
            storage.fstype
        )));
    }
    let mut read_only = false;
    let (mut hash, mut salt, mut offset) = (None, None, None);
    for option in &storage.options {
        let again = |old: bool| match old {
            true => Err(refused(format!("option {option:?} twice"))),
            false => Ok(()),
        };
        if option == "ro" {
            again(std::mem::replace(&mut read_only, true))?;
        } else if let Some(text) = option.strip_prefix(ROOT_HASH) {
            again(hash.replace(text).is_some())?;
        } else if let Some(text) = option.strip_prefix(SALT) {
            again(salt.replace(text).is_some())?;
        } else if let Some(text) = option.strip_prefix(HASH_OFFSET) {
            again(offset.replace(text).is_some())?;
        } else {
            return Err(refused(format!("option {option:?} is not known")));
        }
    }
    let (true, Some(hash), Some(salt), Some(offset)) = (read_only, hash, salt, offset) else {
        return Err(refused("expected the options ro, roothash, salt and hashoffset".into()));
    };
    let salt: ah_digest::Sha256 = salt.parse().map_err(|e| refused(format!("salt: {e}")))?;
    let verity = VerityInfo::from_hash_offset(
        hash.parse().map_err(|e| refused(format!("root hash: {e}")))?,
        *salt.as_bytes(),
        decimal(offset)
            .ok_or_else(|| refused(format!("hash offset {offset:?} is no decimal number")))?,
    )
    .map_err(|e| refused(e.to_string()))?;
    let expected = layout.kata().join("layers").join(verity.root_hash.to_string());
    if expected.to_str() != Some(storage.mount_point.as_str()) {
        return Err(refused(format!(
            "mount_point: found {:?}, expected {expected:?}",
            storage.mount_point
        )));
    }
    let device: PciPath = storage.source.parse().map_err(|e| refused(format!("source: {e}")))?;
    Ok(LayerSource { device, verity })
}

/// Digits only: no sign, no space, no second way to write a number.
fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn overlay(storage: &Storage, root: &Path, folders: &[String]) -> Result<(), Failure> {
    let lower = format!("lowerdir={}", folders.join(":"));
    let fine = storage.fstype == "overlay"
        && storage.source == "overlay"
        && storage.driver_options.is_empty()
        && storage.fs_group.is_none()
        && root.to_str() == Some(storage.mount_point.as_str())
        && matches!(storage.options.as_slice(), [only] if *only == lower);
    if fine {
        Ok(())
    } else {
        Err(Failure::refused(format!(
            "storages (overlay): found source {:?}, options {:?} on {:?}, expected the layers before it in their order, {lower:?} on {root:?}",
            storage.source, storage.options, storage.mount_point
        )))
    }
}

fn volume(storage: &Storage, layout: &Layout) -> Result<Volume, Failure> {
    let refused = |text: String| Failure::refused(format!("storages (volume): {text}"));
    if storage.fstype != "tmpfs" || storage.source != "tmpfs" {
        return Err(refused(format!(
            "found source {:?} of type {:?}, expected tmpfs",
            storage.source, storage.fstype
        )));
    }
    let base = layout.kata().join("sandbox/ephemeral");
    let folder = PathBuf::from(&storage.mount_point);
    let name = folder.strip_prefix(&base).ok().and_then(single_name);
    if name.is_none() || storage.mount_point.ends_with('/') {
        return Err(refused(format!(
            "mount_point: found {folder:?}, expected a name below {base:?}"
        )));
    }
    let group = storage.fs_group.as_ref().map(|g| g.group_id);
    for option in storage.options.iter().chain(&storage.driver_options) {
        let known = ["size=", "mode="].iter().any(|p| {
            option.strip_prefix(p).is_some_and(|v| {
                !v.is_empty()
                    && v.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'k' | b'm' | b'g'))
            })
        });
        // fsgid is how the Kata runtime gives the group as a driver option; fs_group says the same.
        let group_again = group.is_some_and(|g| *option == format!("fsgid={g}"));
        if !known && !group_again {
            return Err(refused(format!("option {option:?} is not known")));
        }
    }
    let options = storage.options.clone();
    Ok(Volume { folder, options, group })
}

/// The one normal component of a path that has no other.
fn single_name(path: &Path) -> Option<&str> {
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => name.to_str(),
        _ => None,
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
