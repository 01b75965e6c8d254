//! A policy in people's words: who may run what, and what the host may still choose.

mod text;

use ah_grant::FragmentSource;
use ah_permit::{Policy, Secrets};
use ah_pod::placeholder;
use serde::Serialize;
use serde_json::Value;

use crate::agent::Agent;
use crate::bounds::WordData;
use crate::data::{ContainerData, EntryData, PolicyData, SANDBOX};
use crate::explain::ExplainError;
use crate::sealed;

pub(crate) use text::Words;

/// Where the runtime's copied files lie in the guest; their names go on with ids of the host's.
const SHARED_DIR: &str = "/run/kata-containers/shared/containers/";
/// Where the guest keeps the pod's volumes in its memory.
const VOLUME_DIR: &str = "/run/kata-containers/sandbox/ephemeral/";
/// The release socket, in the guest and in the containers that have it.
const RELEASE_SOCKET: &str = "/run/anchorhold/release.sock";
/// What every container gets: where, and what people call it.
const STANDARD: [(&str, &str); 5] = [
    ("/etc/hosts", "hosts"),
    ("/etc/hostname", "hostname"),
    ("/etc/resolv.conf", "resolv.conf"),
    ("/dev/termination-log", "termination log"),
    ("/dev/shm", "shared memory"),
];

/// What a host with a stock Kata agent chooses beside the rest.
const KATA_CHOOSES: [&str; 5] = [
    "when an init container has ended: the agent does not tell the policy how it ended",
    "contents of the files of ConfigMaps, Secrets, tokens and the downward API: the agent does not tell the policy",
    "CPU and memory of containers, huge pages, the AppArmor profile's name, further hidden paths",
    "annotations that only its runtime reads, and the OCI version",
    "no seccomp filter is applied in the guest; images are pulled there, by digest",
];

/// What a policy allows. `{}` shows it with what is the same for every pod folded, `{:#}` all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Which agent enforces it.
    pub agent: Agent,
    /// The pod's containers in the order of their creation.
    pub containers: Vec<ShownContainer>,
    /// Whether the host may read what the containers print.
    pub logs: bool,
    /// Whether keys and execs wait until every container has been created.
    pub whole: bool,
    /// The key whose holder may grant debug sessions; `None` when nobody can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_key: Option<String>,
    /// Who may add containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<FragmentSource>,
    /// Files that the host fills with what it likes.
    pub host_files: Vec<String>,
    /// What else the host may choose, each with its bound.
    pub host_chooses: Vec<String>,
}

/// What a policy allows one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShownContainer {
    /// Name.
    pub name: String,
    /// `init`, `sidecar` or `main`.
    pub role: String,
    /// Image with its digest.
    pub image: String,
    /// dm-verity root hashes of its layers, top first.
    pub layers: Vec<String>,
    /// Command line.
    pub command: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User and group ids, supplementary groups.
    pub user: String,
    /// Environment, in order.
    pub env: Vec<ShownEnv>,
    /// Mounts that are not the same for every pod, but for its volumes of files.
    pub mounts: Vec<ShownMount>,
    /// Mounts that are.
    pub standard_mounts: Vec<ShownMount>,
    /// Its volumes of files, or the parts of them that it has.
    pub volumes: Vec<ShownVolume>,
    /// Effective capabilities.
    pub capabilities: Vec<String>,
    /// Commands that the host may have run in it.
    pub execs: Vec<Vec<String>>,
    /// Commands of which some words may vary; these stand as `<…>`, in words.
    pub exec_patterns: Vec<Vec<String>>,
    /// Whether the host may read its termination message.
    pub termination_log: bool,
    /// Whether the host may write to its stdin.
    pub stdin: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has the release socket.
    pub release_socket: bool,
    /// Whether it may be created again after it ended.
    pub restart: bool,
    /// What it is on other platforms, where their images differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<ShownPlatform>,
}

/// What a container is on another platform than the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownPlatform {
    /// `os/architecture`.
    pub platform: String,
    /// The container there.
    pub container: Box<ShownContainer>,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownEnv {
    /// Name.
    pub name: String,
    /// Value; `None` when it comes from a Secret.
    pub value: Option<String>,
    /// Whether it comes from a Secret.
    pub secret: bool,
    /// The key that the value is sealed to; the host sees the sealed text alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownMount {
    /// Path in the guest, placeholders in place.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// A volume of files, or the part of one, as a container has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownVolume {
    /// Where the container sees it.
    pub destination: String,
    /// Files that the owner declared.
    pub files: Vec<ShownFile>,
    /// Objects whose files the host chooses, names and contents.
    pub unpinned: Vec<String>,
}

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownFile {
    /// Path in the volume; empty where the volume is the file.
    pub path: String,
    /// Permissions, octal.
    pub mode: String,
    /// SHA-256 of the contents, where they are pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the host may put there, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpinned: Option<String>,
}

/// Reads a policy made by this crate.
///
/// # Errors
/// [`ExplainError`] when the text does not compile or has other data.
pub fn show(policy: &str) -> Result<Shown, ExplainError> {
    let data = read_data(&Policy::compile(policy)?)?;
    let workloads = data.containers.iter().filter(|container| container.name != SANDBOX);
    let containers = workloads.map(|container| {
        let others = container.on_other_platforms();
        let platforms = others.map(|(platform, other)| ShownPlatform {
            platform: platform.to_owned(),
            container: Box::new(whole(&data, &other)),
        });
        ShownContainer { platforms: platforms.collect(), ..whole(&data, container) }
    });
    Ok(Shown {
        agent: data.agent,
        containers: containers.collect(),
        logs: data.logs,
        whole: data.whole,
        debug_key: data.debug_key.map(|key| key.to_string()),
        fragments: data.fragments.clone(),
        host_chooses: host_chooses(&data),
        host_files: data.files,
    })
}

/// A container with its volumes.
fn whole(data: &PolicyData, container: &ContainerData) -> ShownContainer {
    let request = data.request(container);
    let volumes = shown_volumes(data, container, &request);
    let mut shown = shown(container, &request);
    let of_files =
        |mount: &ShownMount| volumes.iter().any(|volume| volume.destination == mount.destination);
    shown.mounts.retain(|mount| !of_files(mount));
    shown.standard_mounts.retain(|mount| !of_files(mount));
    ShownContainer { volumes, ..shown }
}

/// Every value that the policy leaves to the host.
fn host_chooses(data: &PolicyData) -> Vec<String> {
    let mut chooses = vec![
        "ids of sandbox, containers, disks and copied files (digits only)".to_owned(),
        "cgroup paths, network addresses, routes".to_owned(),
        "when containers are started, signalled and removed".to_owned(),
    ];
    let placeholders = [
        ("$(sandbox-name)", "the pod's name"),
        ("$(sandbox-namespace)", "the pod's namespace (a DNS label)"),
        ("$(pod-uid)", "the pod's UID"),
        ("$(pod-index)", "the pod's number among its controller's pods"),
        ("$(node-name)", "the node's name (a DNS name)"),
        ("$(pod-ip)", "the pod's address (IPv4 or IPv6)"),
        ("$(pod-ips)", "the pod's addresses, one a family"),
        ("$(host-ips)", "the node's addresses, one a family"),
        ("$(host-ip)", "the node's address (IPv4 or IPv6)"),
    ];
    let has = |name: &str| data.containers.iter().any(|c| c.read.contains_key(name));
    for (name, words) in placeholders.into_iter().filter(|(name, _)| has(name)) {
        let bound = match name {
            "$(sandbox-name)" => format!(", which must match {}", data.name_pattern),
            _ => String::new(),
        };
        chooses.push(format!("{name}: {words}{bound}"));
    }
    for container in &data.containers {
        for (placeholder, read) in &container.read {
            let (Some(bound), Some(name)) = (&read.within, &read.env) else { continue };
            let bound = bound.words();
            chooses.push(format!("{placeholder} of {}: variable {name}, {bound}", container.name));
        }
    }
    for (index, service) in data.services.iter().enumerate() {
        chooses.push(format!(
            "$(service-ip-{index}): the address of service {service} (IPv4 or IPv6)"
        ));
    }
    if data.sandbox.dns_from_host {
        chooses.push("name servers and search domains".to_owned());
    }
    if data.agent == Agent::Kata {
        chooses.extend(KATA_CHOOSES.map(str::to_owned));
    }
    chooses
}

fn shown_volumes(
    data: &PolicyData,
    container: &ContainerData,
    request: &Value,
) -> Vec<ShownVolume> {
    let volumes = container.volumes.iter();
    let shown = volumes.filter_map(|volume| {
        let tree = data.trees.get(volume.tree)?;
        let destination = request.pointer(&format!("/OCI/Mounts/{}/destination", volume.mount));
        Some(ShownVolume {
            destination: text(destination),
            files: tree.entries.iter().filter_map(|(path, entry)| file(path, entry)).collect(),
            unpinned: tree.unpinned.iter().flat_map(|unpinned| unpinned.objects.clone()).collect(),
        })
    });
    shown.collect()
}

fn file(path: &str, entry: &EntryData) -> Option<ShownFile> {
    let (mode, sha256, unpinned) = match entry {
        EntryData::Folder { .. } | EntryData::Link { .. } => return None,
        EntryData::Pinned { mode, sha256, .. } => (mode, Some(sha256.clone()), None),
        EntryData::Fact { mode, is, before, .. } => (mode, None, Some(format!("{before}{is}"))),
        EntryData::Free { mode, free, .. } => (mode, None, Some(free.clone())),
    };
    let version = format!("{}/", placeholder::VOLUME_VERSION);
    let path = path.strip_prefix(&version).unwrap_or(path).to_owned();
    Some(ShownFile { path, mode: format!("{:03o}", mode & 0o7777), sha256, unpinned })
}

pub(crate) fn read_data(policy: &Policy) -> Result<PolicyData, ExplainError> {
    let data = policy.data().map_err(|detail| ExplainError::Data { detail })?;
    let data = data.ok_or_else(|| ExplainError::Data { detail: "there is none".to_owned() })?;
    serde_json::from_value(data).map_err(|err| ExplainError::Data { detail: err.to_string() })
}

pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

pub(crate) fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// dm-verity root hashes of a request's layers, top first.
pub(crate) fn layers(request: &Value) -> Vec<String> {
    let storages = request.get("storages").and_then(Value::as_array);
    let options = storages.into_iter().flatten().flat_map(|storage| texts(storage.get("options")));
    options
        .filter_map(|option| option.strip_prefix("X-kata.dmverity.roothash=").map(str::to_owned))
        .collect()
}

/// What people may see of a container: the values of Secrets are masked first.
pub(crate) fn shown(container: &ContainerData, request: &Value) -> ShownContainer {
    let names = &open_secrets(&container.secrets, request);
    let secrets = Secrets::of(names, request);
    let request = &secrets.mask(request);
    let open = |words: &Vec<String>| words.iter().map(|word| secrets.mask_text(word)).collect();
    let process = |field: &str| request.pointer(&format!("/OCI/Process/{field}"));
    let number = |field: &str| process(field).and_then(Value::as_u64).unwrap_or_default();
    let groups = process("User/AdditionalGids").map(Value::to_string).unwrap_or_default();
    let (standard_mounts, mounts): (Vec<_>, Vec<_>) =
        binds(request).into_iter().partition(|mount| mount.standard().is_some());
    ShownContainer {
        name: container.name.clone(),
        role: container.role.clone(),
        image: text(request.pointer("/OCI/Annotations/io.kubernetes.cri.image-name")),
        layers: layers(request),
        command: texts(process("Args")),
        working_dir: text(process("Cwd")),
        user: format!("{}:{} {groups}", number("User/UID"), number("User/GID")),
        env: texts(process("Env")).iter().map(|entry| env(entry, names)).collect(),
        release_socket: mounts.iter().any(|mount| mount.source == RELEASE_SOCKET),
        mounts,
        standard_mounts,
        volumes: Vec::new(),
        capabilities: texts(process("Capabilities/Effective")),
        execs: container.exec_commands.iter().map(open).collect(),
        exec_patterns: container
            .exec_patterns
            .iter()
            .map(|words| patterned(words, &secrets))
            .collect(),
        termination_log: container.termination_log.is_some(),
        stdin: container.stdin,
        tty: process("Terminal").and_then(Value::as_bool).unwrap_or_default(),
        restart: container.restart,
        platforms: Vec::new(),
    }
}

/// The words of a command of which some may vary.
pub(crate) fn patterned(words: &[WordData], secrets: &Secrets) -> Vec<String> {
    let word = |word: &WordData| match word {
        WordData::Exact(word) => secrets.mask_text(word),
        WordData::Within(bound) => format!("<{}>", bound.words()),
    };
    words.iter().map(word).collect()
}

fn env(entry: &str, secrets: &[String]) -> ShownEnv {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    let secret = secrets.iter().any(|known| known == name);
    let sealed = sealed::key_of(name, value).map(|key| key.to_string());
    ShownEnv { name: name.to_owned(), value: (!secret).then(|| value.to_owned()), secret, sealed }
}

/// The variables from Secrets whose values the policy has as they are; a sealed one says nothing.
fn open_secrets(names: &[String], request: &Value) -> Vec<String> {
    let env = texts(request.pointer("/OCI/Process/Env"));
    let is_sealed = |name: &&String| {
        let mut values = env.iter().filter_map(|entry| entry.split_once('='));
        values.any(|(found, value)| found == *name && sealed::key_of(found, value).is_some())
    };
    names.iter().filter(|name| !is_sealed(name)).cloned().collect()
}

fn binds(request: &Value) -> Vec<ShownMount> {
    let mounts = request.pointer("/OCI/Mounts").and_then(Value::as_array);
    let binds = mounts.into_iter().flatten().filter(|mount| text(mount.get("type_")) == "bind");
    let mount = |mount: &Value| ShownMount {
        source: text(mount.get("source")),
        destination: text(mount.get("destination")),
        options: texts(mount.get("options")),
    };
    binds.map(mount).collect()
}

impl ShownMount {
    /// What people call it, where every container has it.
    fn standard(&self) -> Option<&'static str> {
        let copied = self.source.starts_with(SHARED_DIR) || self.destination == "/dev/shm";
        let found = STANDARD.into_iter().find(|(path, _)| copied && self.destination == *path);
        found.map(|(_, name)| name)
    }
}
