//! What the runtime of a stock Kata 4 node sends otherwise than this project's (Kata Containers, `virtcontainers/kata_agent.go`:
//! `constrainGRPCSpec`, `handlePidNamespace`, `handleEphemeralStorage`, `handleImageGuestPullBlockVolume`).

use ah_agent_api::agent::{
    CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest, Storage,
};
use ah_pod::{Accounts, Medium, Pod, TerminationLog, VolumeSource};
use serde_json::{Value, json};

use crate::data::{EntryData, TreeData};
use crate::generate::GenerateError;

/// Driver of a root that the agent pulls itself.
const GUEST_PULL: &str = "image_guest_pull";
/// Its source for the sandbox, whose program is in the guest image.
const PAUSE: &str = "pause";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// Namespaces in the request: the agent makes the process namespace, the node has the others.
const NAMESPACES: [&str; 3] = ["ipc", "uts", "mount"];
/// Flags of the resolver's file that differ between versions of containerd (`is_spare` in the rules).
const SPARE: [&str; 4] = ["nodev", "noexec", "nosuid", "rprivate"];
/// What people are told of a file whose contents the agent does not tell the rules.
pub(crate) const CONTENTS: &str =
    "contents (a stock Kata agent does not tell the policy what is in a file)";

/// The pod as a node sees it that does not have the image's files.
pub(crate) fn pod(pod: &Pod) -> Result<Pod, GenerateError> {
    let mut pod = pod.clone();
    if !pod.owner_keys.fragments.is_empty() {
        return Err(GenerateError::NotOnKata {
            what: "the pod lets fragments add containers".to_owned(),
            remedy: "only this project's guest knows fragments: --for anchorhold",
        });
    }
    if pod.owner_keys.debug.is_some() {
        return Err(GenerateError::NotOnKata {
            what: "the pod has a debug key".to_owned(),
            remedy: "only this project's guest knows debug grants: --for anchorhold",
        });
    }
    for volume in &pod.volumes {
        if let VolumeSource::EmptyDir { medium: Medium::Disk, .. } = volume.source {
            return Err(GenerateError::NotOnKata {
                what: format!("volume {:?} is an emptyDir on the node's disk", volume.name),
                remedy: "medium: Memory keeps it in the guest",
            });
        }
    }
    for container in &mut pod.containers {
        let own = |path: &String| container.mounts.iter().any(|mount| mount.path == *path);
        let volume = container.image.volumes.iter().find(|path| !own(path));
        let problem = match volume {
            _ if container.release_socket => Some((
                format!("container {:?} has the release socket", container.name),
                "only this project's guest has one: --for anchorhold",
            )),
            _ if container.choices.termination_log == TerminationLog::Readable => Some((
                format!("the termination message of container {:?} is to be read", container.name),
                "leave anchorhold.dev/termination-log out: a stock agent gives it by another way or not",
            )),
            _ if container.mounts.iter().any(|mount| mount.sub_path.is_some()) => Some((
                format!("container {:?} mounts a subPath", container.name),
                "mount the whole volume",
            )),
            Some(path) => Some((
                format!("the image of container {:?} declares volume {path:?}", container.name),
                "mount an emptyDir with medium: Memory there",
            )),
            None => None,
        };
        if let Some((what, remedy)) = problem {
            return Err(GenerateError::NotOnKata { what, remedy });
        }
        // The node does not unpack the image, so containerd finds no /etc/passwd and no /etc/group.
        container.image.accounts = Accounts::default();
    }
    Ok(pod)
}

pub(crate) fn create_sandbox(mut request: CreateSandboxRequest) -> CreateSandboxRequest {
    request.sandbox_pidns = false;
    request
}

pub(crate) fn create_container(
    pod: &Pod,
    mut request: CreateContainerRequest,
) -> CreateContainerRequest {
    let fs_group = pod.security.fs_group.map(|group| format!("fsgid={}", group.gid));
    request.storages.retain(|storage| storage.driver == "ephemeral");
    for storage in &mut request.storages {
        storage.options = fs_group.iter().cloned().collect();
        storage.shared = false;
        storage.fs_group = None.into();
    }
    let Some(spec) = request.OCI.as_mut() else { return request };
    let is_sandbox = spec.Annotations.get(CONTAINER_TYPE).is_some_and(|kind| kind == "sandbox");
    let image = match is_sandbox {
        true => PAUSE.to_owned(),
        false => spec.Annotations.get(IMAGE_NAME).cloned().unwrap_or_default(),
    };
    let root = spec.Root.as_ref().map(|root| root.Path.clone()).unwrap_or_default();
    // Only containerd's sandbox container has one; the agent gives the pod's to all.
    if !is_sandbox {
        spec.Hostname.clear();
    }
    if let Some(linux) = spec.Linux.as_mut() {
        linux.Seccomp = None.into();
        linux.Namespaces.retain(|namespace| NAMESPACES.contains(&namespace.Type.as_str()));
    }
    request.storages.insert(0, pulled(image, root));
    request
}

fn pulled(image: String, root: String) -> Storage {
    Storage {
        driver: GUEST_PULL.into(),
        source: image,
        fstype: "overlay".into(),
        mount_point: root,
        ..Default::default()
    }
}

/// The runtime sends these parts of the process only (`cmdToKataProcess`).
pub(crate) fn exec_process(mut request: ExecProcessRequest) -> ExecProcessRequest {
    if let Some(process) = request.process.as_mut() {
        process.Capabilities = None.into();
        process.OOMScoreAdj = 0;
    }
    request
}

/// The form in which `seen` of the rules gives a request.
pub(crate) fn normal(request: &mut Value) {
    if let Some(resources) =
        request.pointer_mut("/OCI/Linux/Resources").and_then(Value::as_object_mut)
    {
        ["CPU", "HugepageLimits", "Memory"].iter().for_each(|key| drop(resources.remove(*key)));
    }
    if let Some(gids) = request.pointer_mut("/OCI/Process/User/AdditionalGids")
        && let Some(gids) = gids.as_array_mut()
    {
        gids.sort_by_key(Value::as_u64);
    }
    let mounts = request.pointer_mut("/OCI/Mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        let resolver = mount.get("destination") == Some(&json!("/etc/resolv.conf"));
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            let spare = |option: &Value| option.as_str().is_some_and(|o| SPARE.contains(&o));
            options.retain(|option| !(resolver && spare(option)));
            options.sort_by_key(Value::to_string);
        }
    }
}

/// Trees without what the agent cannot compare: their shape stays.
pub(crate) fn without_contents(trees: &mut [TreeData]) {
    for entry in trees.iter_mut().flat_map(|tree| tree.entries.values_mut()) {
        if let EntryData::Pinned { mode, uid, .. } | EntryData::Fact { mode, uid, .. } = entry {
            *entry = EntryData::Free { mode: *mode, uid: *uid, free: CONTENTS.to_owned() };
        }
    }
}
