//! A policy in people's words: who may run what, and what the host may still choose.

use std::fmt;

use ah_permit::Policy;
use serde::Serialize;
use serde_json::Value;

use crate::data::{PolicyData, SANDBOX};
use crate::explain::ExplainError;

/// What a policy allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The pod's containers in the order of their creation.
    pub containers: Vec<ShownContainer>,
    /// Whether the host may read what the containers print.
    pub logs: bool,
    /// Files that the host fills with what it likes.
    pub host_files: Vec<String>,
    /// What else the host may choose, each with its bound.
    pub host_chooses: Vec<String>,
}

/// What a policy allows one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Mounts that are not the runtime's own, `source -> destination (options)`.
    pub mounts: Vec<String>,
    /// Effective capabilities.
    pub capabilities: Vec<String>,
    /// Commands that the host may have run in it.
    pub execs: Vec<Vec<String>>,
    /// Whether the host may write to its stdin.
    pub stdin: bool,
    /// Whether it has the release socket.
    pub release_socket: bool,
    /// Whether it may be created again after it ended.
    pub restart: bool,
}

/// Reads a policy made by this crate.
///
/// # Errors
/// [`ExplainError`] when the text does not compile or has other data.
pub fn show(policy: &str) -> Result<Shown, ExplainError> {
    let data = read_data(&Policy::compile(policy)?)?;
    let workloads = data.containers.iter().filter(|container| container.name != SANDBOX);
    let containers: Vec<ShownContainer> = workloads
        .map(|container| {
            let request = data.request(container);
            ShownContainer {
                name: container.name.clone(),
                role: container.role.clone(),
                restart: container.restart,
                stdin: container.stdin,
                execs: container.exec_commands.clone(),
                ..shown(&request)
            }
        })
        .collect();
    let mut host_chooses = vec![
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
        ("$(host-ip)", "the node's address (IPv4 or IPv6)"),
    ];
    let reads: Vec<&str> =
        data.containers.iter().flat_map(|c| &c.read).map(|read| read.p.as_str()).collect();
    for (name, words) in placeholders.into_iter().filter(|(name, _)| reads.contains(name)) {
        let bound = match name {
            "$(sandbox-name)" => format!(", which must match {}", data.name_pattern),
            _ => String::new(),
        };
        host_chooses.push(format!("{name}: {words}{bound}"));
    }
    if data.sandbox.dns_from_host {
        host_chooses.push("name servers and search domains".to_owned());
    }
    Ok(Shown { containers, logs: data.logs, host_files: data.files, host_chooses })
}

pub(crate) fn read_data(policy: &Policy) -> Result<PolicyData, ExplainError> {
    let data = policy.data().map_err(|detail| ExplainError::Data { detail })?;
    let data = data.ok_or_else(|| ExplainError::Data { detail: "there is none".to_owned() })?;
    serde_json::from_value(data).map_err(|err| ExplainError::Data { detail: err.to_string() })
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn shown(request: &Value) -> ShownContainer {
    let process = |field: &str| request.pointer(&format!("/OCI/Process/{field}"));
    let number = |field: &str| process(field).and_then(Value::as_u64).unwrap_or_default();
    let groups = process("User/AdditionalGids").map(Value::to_string).unwrap_or_default();
    let storages = request.get("storages").and_then(Value::as_array);
    let roots = storages.into_iter().flatten().flat_map(|storage| texts(storage.get("options")));
    let layers = roots
        .filter_map(|option| option.strip_prefix("X-kata.dmverity.roothash=").map(str::to_owned))
        .collect();
    let mounts = request.pointer("/OCI/Mounts").and_then(Value::as_array);
    let binds = mounts.into_iter().flatten().filter(|mount| text(mount.get("type_")) == "bind");
    let mounts: Vec<String> = binds
        .map(|mount| {
            let (source, destination) = (text(mount.get("source")), text(mount.get("destination")));
            format!("{source} -> {destination} ({})", texts(mount.get("options")).join(","))
        })
        .collect();
    ShownContainer {
        name: String::new(),
        role: String::new(),
        image: text(request.pointer("/OCI/Annotations/io.kubernetes.cri.image-name")),
        layers,
        command: texts(process("Args")),
        working_dir: text(process("Cwd")),
        user: format!("{}:{} {groups}", number("User/UID"), number("User/GID")),
        env: texts(process("Env")),
        release_socket: mounts
            .iter()
            .any(|mount| mount.starts_with("/run/anchorhold/release.sock ")),
        mounts,
        capabilities: texts(process("Capabilities/Effective")),
        execs: Vec::new(),
        stdin: false,
        restart: false,
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for container in &self.containers {
            container.fmt(f)?;
        }
        match self.logs {
            true => writeln!(f, "logs: the host MAY READ what the containers print")?,
            false => writeln!(f, "logs: the host may not read what the containers print")?,
        }
        writeln!(f, "files with contents from the host: {}", self.host_files.join(", "))?;
        writeln!(f, "the host still chooses:")?;
        self.host_chooses.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        writeln!(f, "everything else is denied")
    }
}

impl fmt::Display for ShownContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.role.as_str() {
            "init" => "init container",
            "sidecar" => "sidecar",
            _ => "container",
        };
        writeln!(f, "{kind} {}", self.name)?;
        writeln!(f, "  image        {}", self.image)?;
        for layer in &self.layers {
            writeln!(f, "  layer        {layer}")?;
        }
        writeln!(f, "  command      {}", Words(&self.command))?;
        writeln!(f, "  in           {} as {}", self.working_dir, self.user)?;
        for env in &self.env {
            writeln!(f, "  env          {env}")?;
        }
        for mount in &self.mounts {
            writeln!(f, "  mount        {mount}")?;
        }
        writeln!(f, "  capabilities {}", self.capabilities.join(" "))?;
        for exec in &self.execs {
            writeln!(f, "  exec         the host may run {}", Words(exec))?;
        }
        if self.stdin {
            writeln!(f, "  stdin        the host may write to it")?;
        }
        if self.release_socket {
            writeln!(f, "  release      may ask for keys")?;
        }
        if self.restart {
            writeln!(f, "  restart      may be created again after it ended")?;
        }
        Ok(())
    }
}

/// A command line with its arguments told apart.
struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+$()".contains(c);
        for (index, word) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            match !word.is_empty() && word.chars().all(plain) {
                true => write!(f, "{space}{word}")?,
                false => write!(f, "{space}{word:?}")?,
            }
        }
        Ok(())
    }
}
