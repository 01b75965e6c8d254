//! The pod's sandbox: the first container that containerd makes of a pod, in which the guest runs nothing.

use std::path::PathBuf;

use ah_agent_api::agent::{CreateContainerRequest, CreateSandboxRequest};
use ah_agent_api::oci;
use ah_digest::Sha256;
use ah_pod::shape;

use super::annotations::{self, Hints};
use super::bundle::Spec;
use super::mounts::{self, Copied};
use super::{ConvertError, workload};

/// CPU shares of the sandbox container (containerd, `defaultSandboxCPUshares`).
const CPU_SHARES: u64 = 2;

/// The sysctls that containerd 2 sets in every pod with a network of its own (`enable_unprivileged_ports`,
/// `enable_unprivileged_icmp`), which are the node's choice and not the pod's.
const NODE_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// A pod's sandbox as the shim keeps it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// The pod's host name.
    pub hostname: String,
    /// The pod's network namespace.
    pub network_namespace: Option<PathBuf>,
    /// What the pod tells the runtime.
    pub hints: Hints,
    /// What the pod's containers may use together, where the kubelet says it.
    pub sizing: Sizing,
    /// The request for the sandbox container.
    pub request: CreateContainerRequest,
    /// The node's `resolv.conf` for the pod, copied in before that request.
    pub resolv_conf: Option<Copied>,
}

/// The kubelet's sums over a pod's containers (containerd 1.7 and later, Kubernetes 1.23 and later).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizing {
    /// CFS quota, microseconds a period; 0 is unlimited.
    pub cpu_quota_us: i64,
    /// CFS period, microseconds.
    pub cpu_period_us: u64,
    /// Memory limit; 0 is unlimited.
    pub memory_bytes: i64,
}

/// Reads the sandbox's spec.
///
/// # Errors
/// [`ConvertError`] for a pod that cannot be in a VM.
pub fn sandbox(id: &str, spec: &Spec) -> Result<Sandbox, ConvertError> {
    check(spec)?;
    let resolv_conf = mounts::node_file(id, spec, "/etc/resolv.conf");
    Ok(Sandbox {
        id: id.into(),
        hostname: spec.hostname.clone(),
        network_namespace: spec.namespace("network").map(|found| PathBuf::from(&found.path)),
        hints: annotations::hints(spec)?,
        sizing: sizing(spec),
        request: request(id, spec, resolv_conf.as_ref())?,
        resolv_conf,
    })
}

/// The sandbox of a container without a pod (`ctr run`): an id of its own in the form of containerd's, and nothing of a pod.
///
/// # Errors
/// As [`sandbox`].
pub fn alone(id: &str, spec: &Spec) -> Result<Sandbox, ConvertError> {
    let own = Sha256::of(format!("sandbox of {id}")).to_string();
    let namespace = spec.namespace("network").map(|found| PathBuf::from(&found.path));
    let limits = &spec.linux.resources;
    Ok(Sandbox {
        hostname: spec.hostname.clone(),
        network_namespace: namespace.filter(|path| path.is_absolute()),
        hints: annotations::hints(spec)?,
        sizing: Sizing {
            cpu_quota_us: limits.cpu.quota,
            cpu_period_us: limits.cpu.period,
            memory_bytes: limits.memory.limit,
        },
        request: request(&own, spec, None)?,
        resolv_conf: None,
        id: own,
    })
}

impl Sandbox {
    /// The request that makes the sandbox; `resolv_conf` is the text of that file.
    pub fn create_request(&self, resolv_conf: &str) -> CreateSandboxRequest {
        CreateSandboxRequest {
            hostname: self.hostname.clone(),
            dns: resolv_conf.lines().map(String::from).collect(),
            storages: shape::sandbox_storages(),
            sandbox_pidns: self.hints.runtime.share_process_namespace,
            sandbox_id: self.id.clone(),
            kernel_modules: shape::kernel_modules(self.hints.runtime.sctp),
            ..Default::default()
        }
    }
}

/// A namespace that a pod's sandbox does not have is the node's.
fn check(spec: &Spec) -> Result<(), ConvertError> {
    for (name, kind) in [("network", "Network"), ("pid", "PID"), ("ipc", "IPC")] {
        if spec.namespace(name).is_none() {
            return Err(ConvertError::HostNamespace { kind });
        }
    }
    Ok(())
}

fn request(
    id: &str,
    spec: &Spec,
    resolv_conf: Option<&Copied>,
) -> Result<CreateContainerRequest, ConvertError> {
    let process = spec.process.as_ref().ok_or(ConvertError::Missing("process"))?;
    let linux = oci::Linux {
        Sysctl: spec.linux.sysctl.clone(),
        Resources: Some(oci::LinuxResources {
            CPU: Some(oci::LinuxCPU { Shares: CPU_SHARES, ..Default::default() }).into(),
            ..Default::default()
        })
        .into(),
        ..workload::linux(id, spec)
    };
    let mut linux = linux;
    let is_node =
        |(key, value): &(&str, &str)| linux.Sysctl.get(*key).is_some_and(|found| found == value);
    if NODE_SYSCTLS.iter().all(is_node) {
        NODE_SYSCTLS.iter().for_each(|(key, _)| {
            linux.Sysctl.remove(*key);
        });
    }
    let mut mounts =
        shape::sandbox_mounts(resolv_conf.map(|copied| copied.path.as_str()).unwrap_or_default());
    mounts.retain(|mount| !mount.source.is_empty());
    let oci = oci::Spec {
        Version: shape::OCI_VERSION.into(),
        Process: Some(sandbox_process(process.user.uid, process.user.gid)).into(),
        Root: workload::root(id, true),
        Hostname: spec.hostname.clone(),
        Mounts: mounts,
        Annotations: annotations::told(spec, id, "pod_sandbox", &[]),
        Linux: Some(linux).into(),
        ..Default::default()
    };
    Ok(CreateContainerRequest {
        container_id: id.into(),
        exec_id: id.into(),
        OCI: Some(oci).into(),
        ..Default::default()
    })
}

/// What the node's pause image would run: never started in the guest, so it is the same whatever image the node has.
fn sandbox_process(uid: u32, gid: u32) -> oci::Process {
    oci::Process {
        User: Some(oci::User {
            UID: uid,
            GID: gid,
            AdditionalGids: vec![gid],
            ..Default::default()
        })
        .into(),
        Args: vec!["/pause".into()],
        Env: vec![shape::DEFAULT_PATH.into()],
        Cwd: "/".into(),
        Capabilities: Some(workload::full_sets(&shape::DEFAULT_CAPABILITIES)).into(),
        NoNewPrivileges: true,
        OOMScoreAdj: shape::SANDBOX_OOM_SCORE_ADJ,
        ..Default::default()
    }
}

/// containerd 1.7 and later pass the kubelet's sums on in annotations (`pkg/cri/annotations`, `SandboxCPU*`, `SandboxMem`).
fn sizing(spec: &Spec) -> Sizing {
    fn number<T: std::str::FromStr + Default>(spec: &Spec, name: &str) -> T {
        let key = format!("io.kubernetes.cri.sandbox-{name}");
        spec.annotations.get(&key).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
    Sizing {
        cpu_quota_us: number(spec, "cpu-quota"),
        cpu_period_us: number(spec, "cpu-period"),
        memory_bytes: number(spec, "memory"),
    }
}
