//! The OCI spec of a container as it leaves the Kata runtime.

use std::collections::BTreeMap;

use ah_agent_api::oci;

use crate::requests::RequestError;
use crate::{Container, HostValues, Pod, Role, Seccomp, mounts, process, resources, seccomp};

/// OCI runtime specification that containerd 1.7 writes.
pub const OCI_VERSION: &str = "1.1.0";
/// Where containerd keeps a container's bundle on the node, by its usual configuration.
pub const BUNDLE_DIR: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// Paths hidden from containers (kubelet, `defaultMaskedPaths`).
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that containers may only read (kubelet, `defaultReadonlyPaths`).
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container's root in the guest (Kata runtime, `kataGuestSharedDir` layout of 2024).
pub fn root_path(container_id: &str) -> String {
    format!("/run/kata-containers/{container_id}/rootfs")
}

pub(crate) fn workload(
    pod: &Pod,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> Result<oci::Spec, RequestError> {
    let security = &container.security;
    let mut linux = linux(pod, container_id, host);
    linux.Resources = Some(resources::workload(container)).into();
    if security.privileged {
        linux.MaskedPaths.clear();
        linux.ReadonlyPaths.clear();
    }
    linux.Seccomp = match security.seccomp {
        // a privileged container has no filter whatever its profile (kubelet, containerd)
        Seccomp::RuntimeDefault if !security.privileged => {
            Some(seccomp::runtime_default(&process::capabilities(container)?))
        }
        _ => None,
    }
    .into();
    Ok(oci::Spec {
        Version: OCI_VERSION.into(),
        Process: Some(process::workload(pod, container, host)?).into(),
        Root: root(container_id, security.read_only_root),
        Hostname: pod.hostname(host),
        Mounts: mounts::workload(pod, container, container_id, host)?,
        Annotations: workload_annotations(pod, container, container_id, host),
        Linux: Some(linux).into(),
        ..Default::default()
    })
}

pub(crate) fn sandbox(pod: &Pod, host: &HostValues) -> Result<oci::Spec, RequestError> {
    let id = host.sandbox_id.as_str();
    let mut linux = linux(pod, id, host);
    linux.Resources = Some(resources::sandbox()).into();
    linux.Sysctl = pod.security.sysctls.clone();
    Ok(oci::Spec {
        Version: OCI_VERSION.into(),
        Process: Some(process::sandbox(pod)?).into(),
        Root: root(id, true),
        Hostname: pod.hostname(host),
        Mounts: mounts::sandbox(host)?,
        Annotations: annotations(
            pod,
            id,
            host,
            [
                ("io.kubernetes.cri.container-type", "sandbox".into()),
                ("io.katacontainers.pkg.oci.container_type", "pod_sandbox".into()),
            ],
        ),
        Linux: Some(linux).into(),
        ..Default::default()
    })
}

fn root(container_id: &str, read_only: bool) -> ah_agent_api::protobuf::MessageField<oci::Root> {
    Some(oci::Root { Path: root_path(container_id), Readonly: read_only, ..Default::default() })
        .into()
}

fn linux(pod: &Pod, container_id: &str, host: &HostValues) -> oci::Linux {
    oci::Linux {
        CgroupsPath: resources::cgroups_path(pod, &host.pod_uid, container_id),
        Namespaces: namespaces(),
        MaskedPaths: MASKED_PATHS.map(String::from).to_vec(),
        ReadonlyPaths: READONLY_PATHS.map(String::from).to_vec(),
        ..Default::default()
    }
}

/// The namespaces of every container. A path would name a namespace of the host, which means nothing in the guest.
pub fn namespaces() -> Vec<oci::LinuxNamespace> {
    ["ipc", "uts", "pid", "mount"].map(namespace).to_vec()
}

fn namespace(kind: &str) -> oci::LinuxNamespace {
    oci::LinuxNamespace { Type: kind.into(), ..Default::default() }
}

fn workload_annotations(
    pod: &Pod,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> BTreeMap<String, String> {
    annotations(
        pod,
        container_id,
        host,
        [
            ("io.kubernetes.cri.container-name", container.name.clone()),
            ("io.kubernetes.cri.container-type", "container".into()),
            ("io.kubernetes.cri.image-name", container.image.reference.clone()),
            ("io.katacontainers.pkg.oci.container_type", "pod_container".into()),
        ],
    )
}

fn annotations<const N: usize>(
    pod: &Pod,
    container_id: &str,
    host: &HostValues,
    own: [(&str, String); N],
) -> BTreeMap<String, String> {
    let common = [
        ("io.kubernetes.cri.sandbox-id", host.sandbox_id.clone()),
        ("io.kubernetes.cri.sandbox-name", pod.name().render(host)),
        ("io.kubernetes.cri.sandbox-namespace", pod.namespace().render(host)),
        ("io.kubernetes.cri.sandbox-uid", host.pod_uid.clone()),
        ("io.katacontainers.pkg.oci.bundle_path", format!("{BUNDLE_DIR}/{container_id}")),
    ];
    common.into_iter().chain(own).map(|(key, value)| (key.to_owned(), value)).collect()
}

impl Role {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init container",
            Self::Sidecar => "sidecar",
            Self::Main => "container",
        }
    }
}
