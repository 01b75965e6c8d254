//! The agent requests of a pod's life, each built from the pod and the host's values alone.

use std::collections::{BTreeMap, BTreeSet};

use ah_agent_api::agent::{
    CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest,
    KernelModule, Storage, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use ah_agent_api::oci::Spec;
use ah_digest::Sha256;
use ah_verity::VerityInfo;

use crate::users::UserError;
use crate::{Container, HostValues, Pod, files, mounts, network, placeholder, spec, trees};

/// Where the layers of all images are mounted in the guest, by root hash.
const LAYERS_DIR: &str = "/run/kata-containers/layers";

/// Why a request cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The index is outside the pod's containers.
    #[error("pod has {count} containers, none with index {index}")]
    NoContainer {
        /// Index asked for.
        index: usize,
        /// Containers of the pod.
        count: usize,
    },
    /// The host gave no id for the container.
    #[error("host values have no container id for {container:?}")]
    NoContainerId {
        /// Name of the container.
        container: String,
    },
    /// The host gave no disk for a layer.
    #[error("host values have no PCI path for the layer with root hash {root_hash}")]
    NoPciPath {
        /// Root hash of the layer.
        root_hash: String,
    },
    /// The host gave no id for a copied file.
    #[error("host values have no file id for {file:?}")]
    NoFileId {
        /// `<container id>/<base name>`.
        file: String,
    },
    /// Neither manifest nor image says what to run.
    #[error("container {container:?} has no command: neither the manifest nor its image gives one")]
    NoCommand {
        /// Name of the container.
        container: String,
    },
    /// A capability that Linux does not have, or one written with `CAP_`.
    #[error("container {container:?} names an unknown capability {name:?}")]
    UnknownCapability {
        /// Name of the container.
        container: String,
        /// The capability as written.
        name: String,
    },
    /// A mount names a volume that the pod does not have.
    #[error("container {container:?} mounts volume {volume:?}, which the pod does not have")]
    UnknownVolume {
        /// Name of the container.
        container: String,
        /// Name of the volume.
        volume: String,
    },
    /// A `subPath` names nothing of a volume whose files are known.
    #[error(
        "container {container:?} mounts {sub_path:?} of volume {volume:?}, which has no such file or folder"
    )]
    UnknownSubPath {
        /// Name of the container.
        container: String,
        /// Name of the volume.
        volume: String,
        /// The `subPath`.
        sub_path: String,
    },
    /// Two of a container's copied files would have one name.
    #[error(
        "container {container:?} has a terminationMessagePath ending in {base_name:?}, the name of another copied file"
    )]
    FileNameTaken {
        /// Name of the container.
        container: String,
        /// The base name.
        base_name: String,
    },
    /// A text of the owner holds a placeholder, which the policy would leave to the host.
    #[error("text {text:?} holds {reserved:?}, which is reserved for values of the host")]
    ReservedText {
        /// The text.
        text: String,
        /// The placeholder.
        reserved: &'static str,
    },
    /// The process's identity cannot be worked out.
    #[error("container {container:?}: {source}")]
    User {
        /// Name of the container.
        container: String,
        /// Why.
        source: UserError,
    },
    /// The sandbox's identity cannot be worked out.
    #[error(transparent)]
    Sandbox(#[from] UserError),
}

/// Checks that every request of `pod` can be built, and that no text of the owner reads as a value
/// of the host. The generator and the host both call it before they use the pod.
///
/// # Errors
/// The first [`RequestError`] found.
pub fn check(pod: &Pod) -> Result<(), RequestError> {
    check_reserved(pod)?;
    let host = HostValues::placeholders(pod);
    create_sandbox_container(pod, &host)?;
    for index in 0..pod.containers.len() {
        create_container(pod, index, &host)?;
    }
    copy_files(pod, &host).map(drop)
}

/// The sandbox: host name, resolver lines, `/dev/shm`.
pub fn create_sandbox(pod: &Pod, host: &HostValues) -> CreateSandboxRequest {
    CreateSandboxRequest {
        hostname: pod.hostname(host),
        dns: files::resolv_conf(pod, host),
        storages: mounts::sandbox_storages(),
        sandbox_pidns: pod.share_process_namespace,
        sandbox_id: host.sandbox_id.clone(),
        kernel_modules: kernel_modules(pod.speaks_sctp()),
        ..Default::default()
    }
}

/// The kernel modules that the guest is asked for.
pub fn kernel_modules(sctp: bool) -> Vec<KernelModule> {
    let module = sctp.then(|| KernelModule { name: "sctp".into(), ..Default::default() });
    module.into_iter().collect()
}

/// The sandbox (pause) container: no storages; the guest starts no process for it.
///
/// # Errors
/// As [`create_container`].
pub fn create_sandbox_container(
    pod: &Pod,
    host: &HostValues,
) -> Result<CreateContainerRequest, RequestError> {
    check_reserved(pod)?;
    let mut request = request(pod, &host.sandbox_id, spec::sandbox(pod, host)?);
    request.sandbox_pidns = false;
    Ok(request)
}

/// The container at `index` of [`Pod::containers`].
///
/// # Errors
/// When the pod contradicts itself or its image, or `host` lacks a value.
pub fn create_container(
    pod: &Pod,
    index: usize,
    host: &HostValues,
) -> Result<CreateContainerRequest, RequestError> {
    check_reserved(pod)?;
    let container = container(pod, index)?;
    let id = container_id(container, host)?;
    let spec = spec::workload(pod, container, id, host).map_err(|error| named(container, error))?;
    let mut request = request(pod, id, spec);
    let layers = container.image.layers.iter().rev().map(|layer| &layer.verity);
    let limit = container.resources.root_limit_bytes();
    request.storages = layer_storages(layers, id, limit, &host.pci_paths)?;
    request.storages.extend(mounts::volume_storages(pod, container));
    Ok(request)
}

/// The files copied in before the sandbox container is created.
///
/// # Errors
/// As [`create_container`].
pub fn copy_sandbox_files(
    pod: &Pod,
    host: &HostValues,
) -> Result<Vec<CopyFileRequest>, RequestError> {
    check_reserved(pod)?;
    let resolv_conf = files::content(files::Content::ResolvConf, pod, host);
    let names = files::SANDBOX_FILES.iter();
    names
        .map(|base_name| {
            let path = mounts::copied_path(&host.sandbox_id, base_name, host)?;
            Ok(copy_file(path, &resolv_conf))
        })
        .collect()
}

/// The files copied in before the containers are created: the sandbox's, then each container's with its volumes. Those of the
/// containers follow the sandbox container, which says what the pod is called.
///
/// # Errors
/// As [`create_container`].
pub fn copy_files(pod: &Pod, host: &HostValues) -> Result<Vec<CopyFileRequest>, RequestError> {
    let mut requests = copy_sandbox_files(pod, host)?;
    for container in &pod.containers {
        requests.extend(container_files(pod, container, host)?);
    }
    Ok(requests)
}

/// Base names of the copied files that are no volume's: what they hold is the host's to say.
pub fn free_files(pod: &Pod) -> BTreeSet<String> {
    let sandbox = files::SANDBOX_FILES.map(String::from);
    let containers = pod.containers.iter().flat_map(files::container_files);
    sandbox.into_iter().chain(containers).collect()
}

/// The files of the container at `index` alone, as a runtime that creates containers one by one
/// copies them.
///
/// # Errors
/// As [`create_container`].
pub fn copy_container_files(
    pod: &Pod,
    index: usize,
    host: &HostValues,
) -> Result<Vec<CopyFileRequest>, RequestError> {
    check_reserved(pod)?;
    container_files(pod, container(pod, index)?, host)
}

/// One more process in the container at `index`: its own process with other arguments.
///
/// # Errors
/// As [`create_container`].
pub fn exec_process(
    pod: &Pod,
    index: usize,
    args: &[String],
    exec_id: &str,
    host: &HostValues,
) -> Result<ExecProcessRequest, RequestError> {
    let create = create_container(pod, index, host)?;
    let mut process = create.OCI.Process.clone();
    if let Some(process) = process.as_mut() {
        process.Args = args.to_vec();
        process.Terminal = false;
    }
    Ok(ExecProcessRequest {
        container_id: create.container_id,
        exec_id: exec_id.into(),
        process,
        ..Default::default()
    })
}

/// The interface of QEMU's user-mode network: `eth0`, 10.0.2.15/24, with this hardware address.
pub fn interface(hardware_address: &str) -> UpdateInterfaceRequest {
    network::interface(hardware_address)
}

/// The routes of QEMU's user-mode network: the link, then the default by 10.0.2.2.
pub fn routes() -> UpdateRoutesRequest {
    network::routes()
}

fn container(pod: &Pod, index: usize) -> Result<&Container, RequestError> {
    let count = pod.containers.len();
    pod.containers.get(index).ok_or(RequestError::NoContainer { index, count })
}

fn container_id<'a>(container: &Container, host: &'a HostValues) -> Result<&'a str, RequestError> {
    match host.container_ids.get(&container.name) {
        Some(id) => Ok(id),
        None => Err(RequestError::NoContainerId { container: container.name.clone() }),
    }
}

fn named(container: &Container, error: RequestError) -> RequestError {
    match error {
        RequestError::Sandbox(source) => {
            RequestError::User { container: container.name.clone(), source }
        }
        other => other,
    }
}

fn request(pod: &Pod, container_id: &str, spec: Spec) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: container_id.into(),
        exec_id: container_id.into(),
        OCI: Some(spec).into(),
        sandbox_pidns: pod.share_process_namespace,
        ..Default::default()
    }
}

fn container_files(
    pod: &Pod,
    container: &Container,
    host: &HostValues,
) -> Result<Vec<CopyFileRequest>, RequestError> {
    let id = container_id(container, host)?;
    let mut seen: Vec<String> = Vec::new();
    let mut requests = Vec::new();
    for file in files::files(container) {
        if seen.contains(&file.base_name) {
            return Err(RequestError::FileNameTaken {
                container: container.name.clone(),
                base_name: file.base_name,
            });
        }
        let path = mounts::copied_path(id, &file.base_name, host)?;
        requests.push(copy_file(path, &files::content(file.content, pod, host)));
        seen.push(file.base_name);
    }
    requests.extend(trees::copies(pod, container, id, host)?);
    Ok(requests)
}

fn copy_file(path: String, text: &str) -> CopyFileRequest {
    CopyFileRequest {
        path,
        file_size: i64::try_from(text.len()).unwrap_or(i64::MAX),
        file_mode: FILE_MODE,
        dir_mode: DIR_MODE,
        data: text.as_bytes().to_vec(),
        ..Default::default()
    }
}

/// A regular file, `rw-r--r--`.
const FILE_MODE: u32 = 0o100_644;
/// Permissions of folders made on the way (Kata runtime, `DirMode`).
const DIR_MODE: u32 = 0o750;

/// The layers, top first, then the overlay that joins them, with a `size` in bytes where what is written above them has a limit
/// (as tmpfs(5) has it; overlayfs itself knows no such option).
///
/// # Errors
/// [`RequestError::NoPciPath`] for a layer whose disk is not among `pci_paths`.
pub fn layer_storages<'a>(
    top_first: impl IntoIterator<Item = &'a VerityInfo>,
    container_id: &str,
    limit_bytes: Option<u64>,
    pci_paths: &BTreeMap<Sha256, String>,
) -> Result<Vec<Storage>, RequestError> {
    let layers = top_first.into_iter().map(|layer| layer_storage(layer, pci_paths));
    let mut storages: Vec<Storage> = layers.collect::<Result<_, _>>()?;
    let lower: Vec<&str> = storages.iter().map(|storage| storage.mount_point.as_str()).collect();
    let lower = format!("lowerdir={}", lower.join(":"));
    storages.push(Storage {
        driver: "overlayfs".into(),
        source: "overlay".into(),
        fstype: "overlay".into(),
        options: std::iter::once(lower).chain(limit_bytes.map(size)).collect(),
        mount_point: spec::root_path(container_id),
        ..Default::default()
    });
    Ok(storages)
}

/// The option of a file system with a limit.
pub(crate) fn size(bytes: u64) -> String {
    format!("size={bytes}")
}

fn layer_storage(
    verity: &VerityInfo,
    pci_paths: &BTreeMap<Sha256, String>,
) -> Result<Storage, RequestError> {
    let root_hash = verity.root_hash.to_string();
    let source = pci_paths
        .get(&verity.root_hash)
        .ok_or_else(|| RequestError::NoPciPath { root_hash: root_hash.clone() })?;
    Ok(Storage {
        driver: "blk".into(),
        source: source.clone(),
        fstype: "erofs".into(),
        options: vec![
            "ro".into(),
            format!("X-kata.dmverity.roothash={root_hash}"),
            format!("X-kata.dmverity.salt={}", ah_digest::Digest::new(verity.salt)),
            format!("X-kata.dmverity.hashoffset={}", verity.hash_offset_bytes()),
        ],
        mount_point: format!("{LAYERS_DIR}/{root_hash}"),
        shared: true,
        ..Default::default()
    })
}

/// The pod's own texts, found by serialising it: a field added later is looked at too.
fn check_reserved(pod: &Pod) -> Result<(), RequestError> {
    // a pod is plain data with text keys, so it always has a JSON form, in which this start stands as it is
    let text = serde_json::to_string(pod).unwrap_or_else(|_| placeholder::START.to_owned());
    match text.contains(placeholder::START) {
        true => check_reserved_value(&serde_json::to_value(pod).unwrap_or_default()),
        false => Ok(()),
    }
}

fn check_reserved_value(value: &serde_json::Value) -> Result<(), RequestError> {
    use serde_json::Value;
    match value {
        Value::String(text) => check_reserved_text(text),
        Value::Array(values) => values.iter().try_for_each(check_reserved_value),
        Value::Object(map) => {
            let checked = map.iter().try_for_each(|(key, value)| {
                check_reserved_text(key)?;
                check_reserved_value(value)
            });
            match (checked, map.get("secret")) {
                (Err(RequestError::ReservedText { reserved, .. }), Some(Value::Bool(true))) => {
                    Err(RequestError::ReservedText { text: "(secret)".into(), reserved })
                }
                (checked, _) => checked,
            }
        }
        _ => Ok(()),
    }
}

fn check_reserved_text(text: &str) -> Result<(), RequestError> {
    let mut reserved = placeholder::ALL.into_iter().chain(placeholder::RESERVED_STEMS);
    match reserved.find(|reserved| text.contains(reserved)) {
        Some(reserved) => Err(RequestError::ReservedText { text: text.into(), reserved }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
