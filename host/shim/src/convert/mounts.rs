//! A container's mounts: the node's paths become the guest's.
//!
//! Where the kubelet and containerd keep what they mount: kubelet `pkg/kubelet/kubelet_getters.go` and
//! `kubelet_pods.go` (`pods/<uid>/etc-hosts`, `volumes/kubernetes.io~<plugin>/<name>`, `volume-subpaths/...`,
//! `containers/<name>/<id>`), containerd `pkg/cri/server/helpers.go` (`sandboxes/<id>/...`, `containers/<id>/volumes/...`).

use std::path::{Path, PathBuf};

use ah_agent_api::oci;
use ah_digest::Sha256;
use ah_pod::{Medium, shape};

use super::bundle::{Mount, Spec};
use super::{ConvertError, MountInfo, Sandbox};

const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
/// Volumes of files, which are copied in whole.
const FILE_VOLUMES: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~downward-api",
    "kubernetes.io~projected",
];
const SUB_PATHS: &str = "volume-subpaths";
/// Hexadecimal digits in the name of a copied file (Kata runtime, `ShareFile`).
const FILE_ID_DIGITS: usize = 16;

/// Something of the node that is copied into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Where it is on the node.
    pub source: PathBuf,
    /// Where it lies in the guest.
    pub path: String,
    /// What it is.
    pub kind: CopyKind,
}

/// What is copied in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
    /// A file that the kubelet or containerd makes for the container.
    NodeFile,
    /// A volume of files, or a part of one.
    Volume,
}

/// An emptyDir that the container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EmptyDir {
    pub(super) name: String,
    /// Where it is.
    pub(super) medium: Medium,
    /// Its group, where the pod has one.
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) mounts: Vec<oci::Mount>,
    pub(super) volumes: Vec<EmptyDir>,
    pub(super) copies: Vec<Copied>,
}

/// What a bind mount's source is.
enum Source {
    Shm,
    NodeFile,
    FileVolume,
    EmptyDir { name: String, sub_path: String, folder: PathBuf },
    ImageVolume,
}

/// The mounts of a container of the pod.
pub(super) fn workload(
    id: &str,
    spec: &Spec,
    sandbox: &Sandbox,
    name: &str,
    mounted: &MountInfo,
) -> Result<Converted, ConvertError> {
    let read_only_root = spec.root.as_ref().is_some_and(|root| root.readonly);
    let mut converted = Converted::default();
    let mut given = Vec::new();
    let mut image_volumes = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| !is_default(mount)) {
        match source(id, mount, mounted)? {
            Source::Shm => given.push(shape::shm()),
            Source::ImageVolume => image_volumes.push(mount.destination.clone()),
            Source::EmptyDir { name, sub_path, folder } => {
                given.push(bind(mount, &format!("{}{sub_path}", shape::volume_path(&name))));
                let (medium, gid) = (mounted.medium(&folder), mounted.group(&folder));
                let volume = EmptyDir { name, medium, gid };
                if !converted.volumes.contains(&volume) {
                    converted.volumes.push(volume);
                }
            }
            kind @ (Source::NodeFile | Source::FileVolume) => {
                let copied = copied(id, mount, kind);
                given.push(bind(mount, &copied.path));
                converted.copies.push(copied);
            }
        }
    }
    // containerd's own default, for containers without a pod
    let tmpfs_shm = |mount: &Mount| mount.kind == "tmpfs" && mount.destination == "/dev/shm";
    if spec.mounts.iter().any(tmpfs_shm)
        && !given.iter().any(|mount| mount.destination == "/dev/shm")
    {
        given.push(shape::shm());
    }
    image_volumes.sort();
    let wanted = image_volumes.iter().filter(|_| read_only_root);
    given.extend(wanted.map(|path| shape::image_volume(path)));
    if sandbox.hints.release_socket.contains(name) {
        given.push(shape::release_socket());
    }
    given.sort_by_key(|mount| shape::depth(&mount.destination));
    converted.mounts = shape::with_defaults(given, is_privileged(spec));
    Ok(converted)
}

/// The node's file that a container sees at this path.
pub(super) fn node_file(id: &str, spec: &Spec, destination: &str) -> Option<Copied> {
    let mount =
        spec.mounts.iter().find(|mount| is_bind(mount) && mount.destination == destination)?;
    Some(copied(id, mount, Source::NodeFile))
}

/// Mounts of file systems, which containerd writes for every container; the guest's are its own.
fn is_default(mount: &Mount) -> bool {
    matches!(mount.kind.as_str(), "proc" | "devpts" | "mqueue" | "sysfs" | "cgroup" | "cgroup2")
        || mount.kind == "tmpfs"
            && matches!(mount.destination.as_str(), "/dev" | "/dev/shm" | "/run")
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind")
}

/// containerd lets a privileged container write there and no other.
pub(super) fn is_privileged(spec: &Spec) -> bool {
    let sys = spec.mounts.iter().find(|mount| mount.destination == "/sys");
    sys.is_some_and(|mount| mount.options.iter().any(|option| option == "rw"))
}

fn source(id: &str, mount: &Mount, mounted: &MountInfo) -> Result<Source, ConvertError> {
    if !is_bind(mount) {
        let (destination, kind) = (mount.destination.clone(), mount.kind.clone());
        return Err(ConvertError::MountType { destination, kind });
    }
    let path = Path::new(&mount.source);
    let parts: Vec<&str> = mount.source.split('/').collect();
    let from_end = |n: usize| parts.len().checked_sub(n).and_then(|at| parts.get(at)).copied();
    let (last, parent, above) = (from_end(1), from_end(2), from_end(3));
    let found = match (above, parent, last) {
        _ if mount.destination == "/dev/shm" && last == Some("shm") => Source::Shm,
        (_, Some(EMPTY_DIR), Some(name)) => {
            Source::EmptyDir { name: name.into(), sub_path: String::new(), folder: path.into() }
        }
        (_, Some(plugin), _) if FILE_VOLUMES.contains(&plugin) => Source::FileVolume,
        (Some("sandboxes"), _, Some("hostname" | "resolv.conf" | "hosts")) => Source::NodeFile,
        (Some("containers"), _, Some(_)) => Source::NodeFile,
        (Some(container), Some("volumes"), _) if container == id => Source::ImageVolume,
        (_, _, Some("etc-hosts")) => Source::NodeFile,
        _ if from_end(4) == Some(SUB_PATHS) => sub_path(&parts, path, mounted),
        _ => {
            let destination = mount.destination.clone();
            return Err(ConvertError::HostPath { destination, source_path: path.into() });
        }
    };
    Ok(found)
}

/// `<pod>/volume-subpaths/<volume>/<container>/<index>`: a bind mount of the part, whose name only the mount table has.
fn sub_path(parts: &[&str], path: &Path, mounted: &MountInfo) -> Source {
    let at = parts.len().saturating_sub(4);
    let pod = parts.get(..at).unwrap_or_default().join("/");
    let name = parts.get(at.saturating_add(1)).copied().unwrap_or_default();
    let folder = PathBuf::from(format!("{pod}/volumes/{EMPTY_DIR}/{name}"));
    match mounted.part_of(path, &folder) {
        Some(sub_path) => Source::EmptyDir { name: name.into(), sub_path, folder },
        None => Source::FileVolume,
    }
}

/// The folder of the emptyDir that a mount may be of.
pub(super) fn volume_folder(source: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = source.split('/').collect();
    let from_end = |n: usize| parts.len().checked_sub(n).and_then(|at| parts.get(at)).copied();
    if from_end(2) == Some(EMPTY_DIR) {
        return Some(source.into());
    }
    let name = from_end(3).filter(|_| from_end(4) == Some(SUB_PATHS))?;
    let pod = parts.get(..parts.len().checked_sub(4)?)?.join("/");
    Some(PathBuf::from(format!("{pod}/volumes/{EMPTY_DIR}/{name}")))
}

/// `pods/<uid>/containers/<name>/<number>` (kubelet, `makeMounts` in `pkg/kubelet/kuberuntime`).
pub(super) fn is_termination_log(source: &str) -> bool {
    let mut parts = source.rsplit('/');
    let number = parts.next().unwrap_or_default();
    let (_name, containers, _uid, pods) = (parts.next(), parts.next(), parts.next(), parts.next());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    (pods, containers) == (Some("pods"), Some("containers")) && is_number
}

fn copied(id: &str, mount: &Mount, source: Source) -> Copied {
    let kind = match source {
        Source::NodeFile => CopyKind::NodeFile,
        _ => CopyKind::Volume,
    };
    let destination = mount.destination.trim_end_matches('/');
    let base_name = destination.rsplit('/').next().unwrap_or_default();
    let file_id = Sha256::of(format!("{id}\0{destination}")).to_string();
    let file_id: String = file_id.chars().take(FILE_ID_DIGITS).collect();
    let path = format!("{}/{id}-{file_id}-{base_name}", shape::SHARED_DIR);
    Copied { source: PathBuf::from(&mount.source), path, kind }
}

/// Which of the two it is: propagation reaches no further than the guest.
fn bind(mount: &Mount, source: &str) -> oci::Mount {
    let read_only = mount.options.iter().any(|option| option == "ro");
    let options = ["rbind", "rprivate", if read_only { "ro" } else { "rw" }];
    shape::bind(&mount.destination, source, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_file_for_the_termination_message_is_known_by_its_place() {
        assert!(is_termination_log("/var/lib/kubelet/pods/1-2/containers/main/0a1b2c3d"));
        for other in [
            "/var/lib/kubelet/pods/1-2/etc-hosts",
            "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~configmap/0a1b",
            "/run/containerd/containers/main/0a1b",
            "/var/lib/kubelet/pods/1-2/containers/main/..",
        ] {
            assert!(!is_termination_log(other), "{other}");
        }
    }
}
