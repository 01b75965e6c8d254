//! Mounts of a container's spec, and the storages behind them.

use ah_agent_api::agent::{FSGroup, Storage};
use ah_agent_api::oci::Mount;
use ah_agent_api::types::FSGroupChangePolicy;

use crate::files::{self, SHARED_DIR};
use crate::pod::{FsGroup, FsGroupChange};
use crate::requests::{RequestError, size};
use crate::{Container, HostValues, Medium, Pod, Volume, VolumeMount, VolumeSource, trees};

/// What the guest keeps for the whole sandbox (Kata runtime, `kataGuestSandboxDir`).
const SANDBOX_DIR: &str = "/run/kata-containers/sandbox";
/// Size of `/dev/shm` (containerd `defaultShmSize`).
const SHM_BYTES: u64 = 64 << 20;
/// The release socket, in the guest and in the containers that have it.
pub const RELEASE_SOCKET: &str = "/run/anchorhold/release.sock";

/// containerd's default mounts without `/run` and `/dev/shm` (`oci.populateDefaultUnixSpec`).
const DEFAULTS: [(&str, &str, &str, &[&str]); 5] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
];
const CGROUP: (&str, &str, &str, &[&str]) =
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev", "relatime"]);

/// A workload container's mounts: containerd's defaults, the cgroup tree, then volumes and node
/// files by depth, so that no mount hides another (containerd `WithMounts`).
pub(crate) fn workload(
    pod: &Pod,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> Result<Vec<Mount>, RequestError> {
    let mut given = volumes(pod, container, container_id, host)?;
    for file in files::files(container) {
        given.push(copied(&file, container, container_id, host)?);
    }
    given.push(shm());
    given.append(&mut image_volumes(container, &given));
    if container.release_socket {
        given.push(release_socket());
    }
    given.sort_by_key(|mount| depth(&mount.destination));

    Ok(with_defaults(given, container.security.privileged))
}

/// A workload container's mounts behind containerd's defaults that none of them replaces.
pub fn with_defaults(mut given: Vec<Mount>, privileged: bool) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = DEFAULTS
        .iter()
        .filter(|(destination, ..)| !is_replaced(destination, &given))
        .chain(std::iter::once(&CGROUP))
        .map(|entry| default(entry, privileged))
        .collect();
    mounts.append(&mut given);
    mounts
}

/// The sandbox container's mounts; no process ever sees them.
pub(crate) fn sandbox(host: &HostValues) -> Result<Vec<Mount>, RequestError> {
    Ok(sandbox_mounts(&copied_path(&host.sandbox_id, "resolv.conf", host)?))
}

/// The sandbox container's mounts with its copied `resolv.conf` at this path of the guest.
pub fn sandbox_mounts(resolv_conf: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = DEFAULTS.iter().map(|entry| default(entry, false)).collect();
    mounts.push(shm());
    mounts.push(bind("/etc/resolv.conf", resolv_conf, &["rbind", "rprivate", "ro"]));
    mounts
}

/// The sandbox's storages: its `/dev/shm`.
pub fn sandbox_storages() -> Vec<Storage> {
    vec![Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: vec![
            "noexec".into(),
            "nosuid".into(),
            "nodev".into(),
            "mode=1777".into(),
            format!("size={SHM_BYTES}"),
        ],
        mount_point: format!("{SANDBOX_DIR}/shm"),
        ..Default::default()
    }]
}

/// One storage for each emptyDir that the container mounts, in the pod's order. Volumes of files have none: they are copied in.
pub(crate) fn volume_storages(pod: &Pod, container: &Container) -> Vec<Storage> {
    let used = |volume: &&Volume| container.mounts.iter().any(|mount| mount.volume == volume.name);
    let storage = |volume: &Volume| match &volume.source {
        VolumeSource::EmptyDir { medium, size_limit_bytes } => {
            Some(volume_storage(&volume.name, *medium, *size_limit_bytes, pod.security.fs_group))
        }
        VolumeSource::Files(_) => None,
    };
    pod.volumes.iter().filter(used).filter_map(storage).collect()
}

/// The storage of an emptyDir: drivers as the Kata runtime has them for its two kinds.
pub fn volume_storage(
    name: &str,
    medium: Medium,
    size_limit_bytes: Option<u64>,
    fs_group: Option<FsGroup>,
) -> Storage {
    let size = size_limit_bytes.map(size);
    let fs_group = fs_group.map(|group| FSGroup {
        group_id: group.gid,
        group_change_policy: match group.change {
            FsGroupChange::Always => FSGroupChangePolicy::Always,
            FsGroupChange::OnRootMismatch => FSGroupChangePolicy::OnRootMismatch,
        }
        .into(),
        ..Default::default()
    });
    let (driver, kind) = match medium {
        Medium::Memory => ("ephemeral", "tmpfs"),
        Medium::Disk => ("local", "local"),
    };
    Storage {
        driver: driver.into(),
        source: kind.into(),
        fstype: kind.into(),
        options: std::iter::once("mode=0777".to_owned()).chain(size).collect(),
        mount_point: volume_path(name),
        fs_group: fs_group.into(),
        shared: true,
        ..Default::default()
    }
}

/// Where an emptyDir lies in the guest.
pub fn volume_path(name: &str) -> String {
    format!("{SANDBOX_DIR}/ephemeral/{name}")
}

fn volumes(
    pod: &Pod,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> Result<Vec<Mount>, RequestError> {
    let mounts = container.mounts.iter();
    mounts.map(|mount| volume_mount(pod, container, mount, container_id, host)).collect()
}

fn volume_mount(
    pod: &Pod,
    container: &Container,
    mount: &VolumeMount,
    container_id: &str,
    host: &HostValues,
) -> Result<Mount, RequestError> {
    let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
    match volume.map(|volume| &volume.source) {
        None => Err(RequestError::UnknownVolume {
            container: container.name.clone(),
            volume: mount.volume.clone(),
        }),
        Some(VolumeSource::EmptyDir { .. }) => {
            let mut source = volume_path(&mount.volume);
            if let Some(sub_path) = &mount.sub_path {
                source = format!("{source}/{sub_path}");
            }
            Ok(bind(&mount.path, &source, &bind_options(mount.read_only)))
        }
        // read-only whatever the mount says (kubelet, `GetAttributes` of these volumes)
        Some(VolumeSource::Files(_)) => {
            let source = trees::tree_path(&mount.path, container_id, host)?;
            Ok(bind(&mount.path, &source, &bind_options(true)))
        }
    }
}

/// Volumes of the image under a read-only root, but for those that a mount of the pod replaces.
fn image_volumes(container: &Container, given: &[Mount]) -> Vec<Mount> {
    let wanted = container.image.volumes.iter().filter(|_| container.security.read_only_root);
    wanted
        .filter(|path| !given.iter().any(|mount| clean(&mount.destination) == clean(path)))
        .map(|path| image_volume(path))
        .collect()
}

/// A volume of the image under a read-only root.
pub fn image_volume(path: &str) -> Mount {
    Mount {
        destination: path.to_owned(),
        source: "tmpfs".into(),
        type_: "tmpfs".into(),
        options: ["nosuid", "nodev", "mode=0777"].map(String::from).to_vec(),
        ..Default::default()
    }
}

/// The path under which the Kata runtime copies a file in: `<container>-<16 hex>-<base name>`.
pub(crate) fn copied_path(
    container_id: &str,
    base_name: &str,
    host: &HostValues,
) -> Result<String, RequestError> {
    let key = HostValues::file_key(container_id, base_name);
    let id = host.file_ids.get(&key).ok_or(RequestError::NoFileId { file: key })?;
    Ok(format!("{SHARED_DIR}/{container_id}-{id}-{base_name}"))
}

/// containerd's own two files follow the root's read-only switch, the kubelet's two do not.
fn copied(
    file: &files::File,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> Result<Mount, RequestError> {
    let follows_root =
        matches!(file.content, files::Content::Hostname | files::Content::ResolvConf);
    let read_only = follows_root && container.security.read_only_root;
    let source = copied_path(container_id, &file.base_name, host)?;
    Ok(bind(&file.destination, &source, &bind_options(read_only)))
}

fn bind_options(read_only: bool) -> [&'static str; 3] {
    ["rbind", "rprivate", if read_only { "ro" } else { "rw" }]
}

/// The sandbox's shared memory as containers see it.
pub fn shm() -> Mount {
    bind("/dev/shm", &format!("{SANDBOX_DIR}/shm"), &["rbind"])
}

/// The release socket as containers see it.
pub fn release_socket() -> Mount {
    bind(RELEASE_SOCKET, RELEASE_SOCKET, &["bind", "nosuid", "nodev", "noexec"])
}

/// A bind mount.
pub fn bind(destination: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        source: source.into(),
        type_: "bind".into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Default::default()
    }
}

/// A privileged container may write `/sys` and its cgroups (containerd `clearReadOnly`).
fn default(entry: &(&str, &str, &str, &[&str]), privileged: bool) -> Mount {
    let (destination, kind, source, options) = *entry;
    let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    if privileged && options.iter().any(|option| option == "ro") {
        options.retain(|option| option != "ro");
        options.push("rw".into());
    }
    Mount {
        destination: destination.into(),
        source: source.into(),
        type_: kind.into(),
        options,
        ..Default::default()
    }
}

fn is_replaced(destination: &str, given: &[Mount]) -> bool {
    let given = |path: &str| given.iter().any(|mount| clean(&mount.destination) == path);
    given(destination) || (destination.starts_with("/dev/") && given("/dev"))
}

fn clean(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// How deep a path is, which orders mounts.
pub fn depth(path: &str) -> usize {
    clean(path).matches('/').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, host, pod};

    fn volume(name: &str) -> Volume {
        limited(name, None)
    }

    fn limited(name: &str, size_limit_bytes: Option<u64>) -> Volume {
        let source = VolumeSource::EmptyDir { medium: Medium::Disk, size_limit_bytes };
        Volume { name: name.into(), source }
    }

    fn mount(volume: &str, path: &str) -> VolumeMount {
        VolumeMount { volume: volume.into(), path: path.into(), read_only: false, sub_path: None }
    }

    fn with(
        mounts: Vec<VolumeMount>,
        change: impl Fn(&mut Container),
    ) -> Result<Vec<Mount>, RequestError> {
        let mut container = container("app");
        container.mounts = mounts;
        change(&mut container);
        let mut pod = pod(vec![container]);
        pod.volumes = vec![volume("a"), volume("b")];
        let host = host(&pod);
        workload(&pod, &pod.containers[0], &host.container_ids["app"], &host)
    }

    fn destinations(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().map(|mount| mount.destination.as_str()).collect()
    }

    const DEFAULT_PATHS: [&str; 6] =
        ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];
    const NODE_PATHS: [&str; 5] =
        ["/etc/hosts", "/dev/termination-log", "/etc/hostname", "/etc/resolv.conf", "/dev/shm"];

    #[test]
    fn mounts_are_containerds_defaults_then_by_depth() {
        let plain = with(vec![], |_| ()).unwrap();
        assert_eq!(destinations(&plain), [&DEFAULT_PATHS[..], &NODE_PATHS[..]].concat());
        let deep = with(vec![mount("a", "/x/y/z"), mount("b", "/data")], |container| {
            container.release_socket = true;
        });
        let expect = [&DEFAULT_PATHS[..], &["/data"], &NODE_PATHS, &["/x/y/z", RELEASE_SOCKET]];
        assert_eq!(destinations(&deep.unwrap()), expect.concat());
    }

    #[test]
    fn a_volume_replaces_the_default_mount_of_its_path() {
        let mounts = with(vec![mount("a", "/dev/mqueue/")], |_| ()).unwrap();
        assert_eq!(mounts.iter().filter(|mount| mount.type_ == "mqueue").count(), 0);
        let mounts = with(vec![mount("a", "/dev")], |_| ()).unwrap();
        assert_eq!(destinations(&mounts)[..4], ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    }

    #[test]
    fn a_mount_of_no_volume_is_refused() {
        let expect = RequestError::UnknownVolume { container: "app".into(), volume: "c".into() };
        assert_eq!(with(vec![mount("c", "/c")], |_| ()), Err(expect));
    }

    #[test]
    fn read_only_root_and_privileged_change_what_containerd_changes() {
        let option = |mounts: &[Mount], path: &str, wanted: &str| {
            let mount = mounts.iter().find(|mount| mount.destination == path).unwrap();
            mount.options.iter().any(|option| option == wanted)
        };
        let plain = with(vec![], |_| ()).unwrap();
        let read_only = with(vec![], |container| container.security.read_only_root = true).unwrap();
        for (path, then) in
            [("/etc/resolv.conf", "ro"), ("/etc/hostname", "ro"), ("/etc/hosts", "rw")]
        {
            assert!(option(&plain, path, "rw"), "{path}");
            assert!(option(&read_only, path, then), "{path}");
        }
        let privileged = with(vec![], |container| container.security.privileged = true).unwrap();
        for path in ["/sys", "/sys/fs/cgroup"] {
            assert!(option(&plain, path, "ro") && !option(&privileged, path, "ro"), "{path}");
            assert!(option(&privileged, path, "rw"), "{path}");
        }
    }

    #[test]
    fn image_volumes_are_writable_under_a_read_only_root() {
        let check = |read_only: bool, path: &str, expect: usize| {
            let mounts = with(vec![mount("a", path)], |container| {
                container.image.volumes = vec!["/data".into()];
                container.security.read_only_root = read_only;
            });
            let mounts = mounts.unwrap();
            let found =
                mounts.iter().filter(|mount| mount.options.iter().any(|o| o == "mode=0777"));
            assert_eq!(found.count(), expect, "{read_only} {path}");
        };
        check(false, "/other", 0);
        check(true, "/other", 1);
        check(true, "/data/", 0);
    }

    #[test]
    fn a_sub_path_is_a_part_of_its_volume() {
        let part = VolumeMount { sub_path: Some("x/y".into()), ..mount("a", "/data") };
        let mounts = with(vec![part], |_| ()).unwrap();
        let found = mounts.iter().find(|mount| mount.destination == "/data").unwrap();
        assert_eq!(found.source, "/run/kata-containers/sandbox/ephemeral/a/x/y");
    }

    #[test]
    fn a_volume_is_one_storage_on_the_scratch_disk_or_in_memory() {
        let mut container = container("app");
        container.mounts = vec![mount("b", "/x"), mount("b", "/y")];
        let mut pod = pod(vec![container]);
        pod.volumes = vec![volume("a"), limited("b", Some(4096))];
        pod.security.fs_group = Some(FsGroup { gid: 7, change: FsGroupChange::OnRootMismatch });
        let storages = volume_storages(&pod, &pod.containers[0]);
        let [storage] = storages.as_slice() else { panic!("{storages:?}") };
        assert_eq!(storage.mount_point, "/run/kata-containers/sandbox/ephemeral/b");
        assert_eq!(storage.options, ["mode=0777", "size=4096"]);
        assert_eq!(storage.fs_group.group_id, 7);
        let kind = |storage: &Storage| {
            [&storage.driver, &storage.source, &storage.fstype].map(String::clone)
        };
        assert_eq!(kind(storage), ["local", "local", "local"]);
        let memory = volume_storage("b", Medium::Memory, None, None);
        assert_eq!(kind(&memory), ["ephemeral", "tmpfs", "tmpfs"]);
    }
}
