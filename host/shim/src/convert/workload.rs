//! A container of the pod.

use std::collections::BTreeMap;

use ah_agent_api::agent::{CreateContainerRequest, Storage};
use ah_agent_api::{oci, protobuf::MessageField};
use ah_digest::Sha256;
use ah_pod::shape;
use ah_verity::VerityInfo;

use super::annotations::{self, CONTAINER_NAME, IMAGE_NAME};
use super::bundle::{self, Capabilities, Process, Spec};
use super::mounts::{self, Converted, Copied};
use super::{ConvertError, MountInfo, Sandbox};

/// CFS period where containerd names none, microseconds (kubelet, `quotaPeriod`).
const CPU_PERIOD_US: u64 = 100_000;

/// Of a guaranteed pod's containers (kubelet, `guaranteedOOMScoreAdj`).
const GUARANTEED_OOM_SCORE_ADJ: i64 = -997;

/// A container as the agent is asked for it.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The container's name in its pod; its id where there is no pod.
    pub name: String,
    /// What is copied in before the request.
    pub copies: Vec<Copied>,
    /// The request.
    pub request: CreateContainerRequest,
}

/// Reads a container's spec. `layers` are its image's, top first, each with a disk in `pci_paths`.
///
/// # Errors
/// [`ConvertError`] for a container that cannot be in a VM.
pub fn workload(
    id: &str,
    spec: &Spec,
    sandbox: &Sandbox,
    layers: &[VerityInfo],
    pci_paths: &BTreeMap<Sha256, String>,
    mounted: &MountInfo,
) -> Result<Workload, ConvertError> {
    check(spec)?;
    let name = spec.annotations.get(CONTAINER_NAME).cloned().unwrap_or_else(|| id.to_owned());
    let Converted { mounts, volumes, copies } =
        mounts::workload(id, spec, sandbox, &name, mounted)?;
    let limit = sandbox.hints.runtime.storage_limit_bytes.get(&name).copied();
    let mut storages = shape::layer_storages(layers, id, limit, pci_paths)?;
    storages.extend(volume_storages(volumes, sandbox));
    let process = spec.process.as_ref().ok_or(ConvertError::Missing("process"))?;
    let oci = oci::Spec {
        Version: shape::OCI_VERSION.into(),
        Process: Some(oci::Process {
            OOMScoreAdj: oom_score_adj(&spec.linux.cgroups_path, process.oom_score_adj),
            Capabilities: Some(container_capabilities(spec, process)).into(),
            ..self::process(process)
        })
        .into(),
        Root: root(id, spec.root.as_ref().is_some_and(|root| root.readonly)),
        // containerd 1.7 and earlier leave it to the sandbox's namespace
        Hostname: sandbox.hostname.clone(),
        Mounts: mounts,
        Annotations: annotations::told(spec, id, "pod_container", &[CONTAINER_NAME, IMAGE_NAME]),
        Linux: Some(workload_linux(id, spec, process)).into(),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        container_id: id.into(),
        exec_id: id.into(),
        storages,
        OCI: Some(oci).into(),
        // a path leads to the sandbox's namespace; without one the container gets its own
        sandbox_pidns: spec.namespace("pid").is_some_and(|found| !found.path.is_empty()),
        ..Default::default()
    };
    Ok(Workload { name, copies, request })
}

fn check(spec: &Spec) -> Result<(), ConvertError> {
    if spec.namespace("pid").is_none() {
        return Err(ConvertError::HostNamespace { kind: "PID" });
    }
    if let Some(hooks) = spec.hooks.as_ref().filter(|hooks| !hooks.is_null()) {
        return Err(ConvertError::Unsupported { field: "hooks", found: hooks.to_string() });
    }
    Ok(())
}

fn volume_storages(volumes: Vec<mounts::EmptyDir>, sandbox: &Sandbox) -> Vec<Storage> {
    let hints = &sandbox.hints.runtime;
    let storage = |volume: mounts::EmptyDir| {
        let group = volume.gid.map(|gid| ah_pod::FsGroup {
            gid,
            change: hints.fs_group_change.unwrap_or(ah_pod::FsGroupChange::Always),
        });
        shape::volume_storage(
            &volume.name,
            volume.medium,
            hints.size_limit_bytes.get(&volume.name).copied(),
            group,
        )
    };
    volumes.into_iter().map(storage).collect()
}

/// What sandbox and containers have in common.
pub(super) fn linux(id: &str, spec: &Spec) -> oci::Linux {
    oci::Linux {
        CgroupsPath: cgroups_path(id, &spec.linux.cgroups_path),
        Namespaces: shape::namespaces(),
        MaskedPaths: shape::MASKED_PATHS.map(String::from).to_vec(),
        ReadonlyPaths: shape::READONLY_PATHS.map(String::from).to_vec(),
        ..Default::default()
    }
}

fn workload_linux(id: &str, spec: &Spec, process: &Process) -> oci::Linux {
    let mut linux = linux(id, spec);
    // A privileged container has neither. Else older kubelets name fewer paths, some of them as read-only that newer ones mask.
    linux.MaskedPaths = joined(&spec.linux.masked_paths, &shape::MASKED_PATHS, &[]);
    linux.ReadonlyPaths =
        joined(&spec.linux.readonly_paths, &shape::READONLY_PATHS, &shape::MASKED_PATHS);
    linux.Resources = Some(limits(&spec.linux.resources)).into();
    let filtered = spec.linux.seccomp.as_ref().is_some_and(|profile| !profile.is_null());
    linux.Seccomp = filtered.then(|| shape::runtime_default(&process.capabilities.bounding)).into();
    linux
}

/// The usual paths, then what the node names beside them.
fn joined(found: &[String], usual: &[&str], elsewhere: &[&str]) -> Vec<String> {
    if found.is_empty() {
        return Vec::new();
    }
    let known =
        |path: &&String| usual.contains(&path.as_str()) || elsewhere.contains(&path.as_str());
    let more = found.iter().filter(|path| !known(path)).cloned();
    usual.iter().map(|path| (*path).to_owned()).chain(more).collect()
}

/// Of the kubelet's cgroupfs driver it is a path; of its systemd driver `slice:prefix:id`, as a path too. It names nothing
/// in the guest.
fn cgroups_path(id: &str, found: &str) -> String {
    match found.split(':').collect::<Vec<_>>().as_slice() {
        [slice, _, name] => format!("/{slice}/{name}"),
        _ if found.is_empty() => format!("/{id}"),
        _ => found.to_owned(),
    }
}

/// The kubelet's score for a guaranteed pod, which containerd raises to its own where the node does not let it lower one
/// (`restrict_oom_score_adj`). The kubelet's class is in the name of the pod's control group.
fn oom_score_adj(cgroups_path: &str, found: i64) -> i64 {
    let has = |part: &str| cgroups_path.contains(part);
    let is_guaranteed = has("kubepods") && !has("burstable") && !has("besteffort");
    if is_guaranteed { found.min(GUARANTEED_OOM_SCORE_ADJ) } else { found }
}

/// Reads resources as containerd sends them when they are to change.
///
/// # Errors
/// [`bundle::BundleError`].
pub fn resources(json: &[u8]) -> Result<oci::LinuxResources, bundle::BundleError> {
    Ok(limits(&bundle::parse_resources(json)?))
}

/// CPU and memory; devices, processes and block I/O are the guest's own.
fn limits(found: &bundle::Resources) -> oci::LinuxResources {
    let cpu = oci::LinuxCPU {
        Shares: found.cpu.shares,
        // containerd writes -1 for "none" where it updates
        Quota: found.cpu.quota.max(0),
        Period: if found.cpu.period == 0 { CPU_PERIOD_US } else { found.cpu.period },
        ..Default::default()
    };
    let memory = Some(found.memory.limit)
        .filter(|limit| *limit > 0)
        .map(|limit| oci::LinuxMemory { Limit: limit, Swap: limit, ..Default::default() });
    oci::LinuxResources { CPU: Some(cpu).into(), Memory: memory.into(), ..Default::default() }
}

pub(super) fn root(id: &str, read_only: bool) -> MessageField<oci::Root> {
    let root = oci::Root { Path: shape::root_path(id), Readonly: read_only, ..Default::default() };
    Some(root).into()
}

/// Limits of the node's kernel (rlimits, AppArmor, SELinux) are left out: the guest's kernel has its own.
pub(super) fn process(found: &Process) -> oci::Process {
    let size = found.console_size.map(|size| oci::Box {
        Height: size.height,
        Width: size.width,
        ..Default::default()
    });
    oci::Process {
        Terminal: found.terminal,
        ConsoleSize: size.into(),
        User: Some(user(&found.user)).into(),
        Args: found.args.clone(),
        Env: found.env.clone(),
        Cwd: found.cwd.clone(),
        Capabilities: Some(capabilities(&found.capabilities)).into(),
        NoNewPrivileges: found.no_new_privileges,
        OOMScoreAdj: found.oom_score_adj,
        ..Default::default()
    }
}

/// Some versions of containerd leave the primary group out of the others.
fn user(found: &bundle::User) -> oci::User {
    let mut groups = found.additional_gids.clone();
    groups.push(found.gid);
    groups.sort_unstable();
    groups.dedup();
    oci::User { UID: found.uid, GID: found.gid, AdditionalGids: groups, ..Default::default() }
}

/// A privileged container has what the node's own service has, which may be less than all; in the guest it has all.
fn container_capabilities(spec: &Spec, process: &Process) -> oci::LinuxCapabilities {
    match mounts::is_privileged(spec) {
        true => full_sets(&shape::ALL_CAPABILITIES),
        false => capabilities(&process.capabilities),
    }
}

/// These in the three sets that containerd fills.
pub(super) fn full_sets(names: &[&str]) -> oci::LinuxCapabilities {
    let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    oci::LinuxCapabilities {
        Bounding: all.clone(),
        Effective: all.clone(),
        Permitted: all,
        ..Default::default()
    }
}

fn capabilities(found: &Capabilities) -> oci::LinuxCapabilities {
    oci::LinuxCapabilities {
        Bounding: found.bounding.clone(),
        Effective: found.effective.clone(),
        Inheritable: found.inheritable.clone(),
        Permitted: found.permitted.clone(),
        Ambient: found.ambient.clone(),
        ..Default::default()
    }
}
