//! The parts of a spec that have tables of their own.

use ah_agent_api::oci;
use serde_json::{Map, Value, json};

use crate::spec::{SpecError, absolute};

/// Mount options that the runtime turns into flags the kernel then enforces.
const FLAG_OPTIONS: [&str; 22] = [
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "bind",
    "rbind",
    "defaults",
];

/// Propagation: a container's mounts never reach the guest, so the ones that only receive are all the same here.
const PROPAGATION_OPTIONS: [&str; 4] = ["private", "rprivate", "slave", "rslave"];

/// Options that a file system takes itself, by prefix or whole (tmpfs(5), devpts of mount(8)).
const DATA_OPTIONS: [(&str, &[&str]); 4] = [
    ("tmpfs", &["mode=", "size=", "uid=", "gid=", "nr_inodes="]),
    ("devpts", &["newinstance", "ptmxmode=", "mode=", "gid=", "uid="]),
    ("mqueue", &[]),
    ("proc", &[]),
];

/// The mounts, in order.
pub(crate) fn mounts(mounts: &[oci::Mount]) -> Result<Vec<Value>, SpecError> {
    mounts.iter().map(mount).collect()
}

fn mount(mount: &oci::Mount) -> Result<Value, SpecError> {
    let kind = mount.type_.as_str();
    let destination = absolute("Mounts.destination", &mount.destination)?;
    if destination.split('/').all(|c| c.is_empty() || c == ".") {
        return Err(SpecError::value("Mounts.destination", destination, "not the root"));
    }
    match kind {
        "bind" => {
            absolute("Mounts.source", &mount.source)?;
        }
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" | "cgroup" => {}
        other => return Err(SpecError::unsupported("Mounts.type", other)),
    }
    // The runtime takes an entry with the option bind as a bind whatever its type says.
    let says_bind = mount.options.iter().any(|o| o == "bind" || o == "rbind");
    if says_bind && kind != "bind" {
        return Err(SpecError::value("Mounts.type", kind, "bind, as its options say"));
    }
    for option in &mount.options {
        mount_option(kind, option)?;
    }
    let source = if mount.source.is_empty() { kind } else { &mount.source };
    let mut options = mount.options.clone();
    if kind == "bind" {
        // The sources are mounted so already; here it stands whatever they are, and last, so that "dev" before it is of no effect.
        options.push("nodev".into());
    }
    Ok(json!({
        "destination": destination,
        "type": kind,
        "source": source,
        "options": options,
    }))
}

fn mount_option(kind: &str, option: &str) -> Result<(), SpecError> {
    if FLAG_OPTIONS.contains(&option) || PROPAGATION_OPTIONS.contains(&option) {
        return Ok(());
    }
    let data =
        DATA_OPTIONS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, data)| data);
    let known = data.iter().any(|d| match d.strip_suffix('=') {
        Some(_) => option.strip_prefix(d).is_some_and(is_plain),
        None => option == *d,
    });
    if known { Ok(()) } else { Err(SpecError::unsupported("Mounts.options", option)) }
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%')
}

/// The namespaces: mount and cgroup fresh, ipc and uts the sandbox's (the maker's own), pid fresh or the shared one.
pub(crate) fn namespaces(linux: &oci::Linux, shared_pid: Option<i32>) -> Result<Value, SpecError> {
    const FIELD: &str = "Linux.Namespaces";
    let mut found: Vec<&str> = Vec::new();
    for namespace in &linux.Namespaces {
        let kind = namespace.Type.as_str();
        if !namespace.Path.is_empty() {
            return Err(SpecError::unsupported("Linux.Namespaces.Path", &namespace.Path));
        }
        if found.contains(&kind) {
            return Err(SpecError::value(FIELD, kind, "each once"));
        }
        if !matches!(kind, "ipc" | "uts" | "mount" | "pid" | "cgroup") {
            return Err(SpecError::unsupported(FIELD, kind));
        }
        found.push(kind);
    }
    for needed in ["ipc", "uts", "mount", "pid"] {
        let shared = needed == "pid" && shared_pid.is_some();
        if !shared && !found.contains(&needed) {
            return Err(SpecError::value(FIELD, found.join(","), "ipc, uts, mount and pid"));
        }
    }
    let pid = match shared_pid {
        Some(first) => json!({ "type": "pid", "path": format!("/proc/{first}/ns/pid") }),
        None => json!({ "type": "pid" }),
    };
    Ok(json!([
        { "type": "ipc", "path": "/proc/self/ns/ipc" },
        { "type": "uts", "path": "/proc/self/ns/uts" },
        pid,
        { "type": "mount" },
        { "type": "cgroup" },
    ]))
}

/// The one capability that mknod(2) of a character or block device asks for, in the first user namespace, so no other one replaces it.
///
/// The adversary is a container of the pod that was not given the release socket. The runtime has no device filter (it would be a
/// program in the kernel for each cgroup), and containerd's default capabilities have this one: such a container would make itself
/// the node of the report device (`/dev/sev-guest`), of a verified layer's device or of the kernel's log, and speak for the whole
/// guest. The nodes that a container needs are made by the runtime before it drops its capabilities. Outside the bounding set, the
/// capability does not come back with a program that has it as a file capability.
const MAKES_DEVICES: &str = "CAP_MKNOD";

/// All five sets without [`MAKES_DEVICES`], for a first process and for an exec. They are written when the request has none too:
/// the runtime leaves the capabilities alone when the message is missing.
pub(crate) fn capabilities(found: Option<&oci::LinuxCapabilities>) -> Result<Value, SpecError> {
    let empty = oci::LinuxCapabilities::default();
    let caps = found.unwrap_or(&empty);
    let sets = [
        ("bounding", &caps.Bounding),
        ("effective", &caps.Effective),
        ("inheritable", &caps.Inheritable),
        ("permitted", &caps.Permitted),
        ("ambient", &caps.Ambient),
    ];
    let mut value = Map::new();
    for (name, set) in sets {
        if let Some(bad) = set.iter().find(|c| !c.starts_with("CAP_")) {
            return Err(SpecError::value("Process.Capabilities", bad, "CAP_ and a name"));
        }
        let kept: Vec<&String> = set.iter().filter(|c| *c != MAKES_DEVICES).collect();
        value.insert(name.into(), json!(kept));
    }
    Ok(Value::Object(value))
}

/// Limits that cgroup v2 has. Zero is "not set" in the request's form.
pub(crate) fn resources(found: &oci::LinuxResources) -> Result<Value, SpecError> {
    if !found.Devices.is_empty() {
        return Err(SpecError::unsupported("Linux.Resources.Devices", "a rule"));
    }
    if let Some(limit) = found.HugepageLimits.first() {
        return Err(SpecError::unsupported("Linux.Resources.HugepageLimits", &limit.Pagesize));
    }
    if found.BlockIO.is_some() {
        return Err(SpecError::unsupported("Linux.Resources.BlockIO", "a message"));
    }
    if found.Network.is_some() {
        return Err(SpecError::unsupported("Linux.Resources.Network", "a message"));
    }
    let mut value = Map::new();
    if let Some(memory) = found.Memory.as_ref() {
        value.insert("memory".into(), memory_limits(memory)?);
    }
    if let Some(cpu) = found.CPU.as_ref() {
        value.insert("cpu".into(), cpu_limits(cpu)?);
    }
    if let Some(pids) = found.Pids.as_ref().filter(|p| p.Limit != 0) {
        value.insert("pids".into(), json!({ "limit": pids.Limit }));
    }
    Ok(Value::Object(value))
}

fn memory_limits(memory: &oci::LinuxMemory) -> Result<Value, SpecError> {
    let refused = memory.Kernel != 0
        || memory.KernelTCP != 0
        || memory.Swappiness != 0
        || memory.DisableOOMKiller;
    if refused {
        return Err(SpecError::unsupported(
            "Linux.Resources.Memory",
            "Kernel, KernelTCP, Swappiness or DisableOOMKiller",
        ));
    }
    let mut value = Map::new();
    for (name, bytes) in
        [("limit", memory.Limit), ("reservation", memory.Reservation), ("swap", memory.Swap)]
    {
        if bytes != 0 {
            value.insert(name.into(), json!(bytes));
        }
    }
    Ok(Value::Object(value))
}

fn cpu_limits(cpu: &oci::LinuxCPU) -> Result<Value, SpecError> {
    if cpu.RealtimeRuntime != 0 || cpu.RealtimePeriod != 0 {
        return Err(SpecError::unsupported("Linux.Resources.CPU", "a realtime limit"));
    }
    let mut value = Map::new();
    if cpu.Shares != 0 {
        value.insert("shares".into(), json!(cpu.Shares));
    }
    if cpu.Quota != 0 {
        value.insert("quota".into(), json!(cpu.Quota));
    }
    if cpu.Period != 0 {
        value.insert("period".into(), json!(cpu.Period));
    }
    if !cpu.Cpus.is_empty() {
        value.insert("cpus".into(), json!(cpu.Cpus));
    }
    if !cpu.Mems.is_empty() {
        value.insert("mems".into(), json!(cpu.Mems));
    }
    Ok(Value::Object(value))
}

/// The system call filter. A filter that asks somebody else for each decision has nobody to ask here.
pub(crate) fn seccomp(found: &oci::LinuxSeccomp) -> Result<Value, SpecError> {
    const NOTIFY: &str = "SCMP_ACT_NOTIFY";
    let mut syscalls = Vec::new();
    for rule in &found.Syscalls {
        if rule.Action == NOTIFY {
            return Err(SpecError::unsupported("Linux.Seccomp.Syscalls.Action", NOTIFY));
        }
        let mut value = json!({ "names": rule.Names, "action": rule.Action });
        if let Some(object) = value.as_object_mut() {
            if let Some(oci::linux_syscall::ErrnoRet::Errnoret(errno)) = rule.ErrnoRet {
                object.insert("errnoRet".into(), json!(errno));
            }
            if !rule.Args.is_empty() {
                let args: Vec<Value> = rule.Args.iter().map(seccomp_argument).collect();
                object.insert("args".into(), Value::Array(args));
            }
        }
        syscalls.push(value);
    }
    let mut value = json!({ "defaultAction": found.DefaultAction, "syscalls": syscalls });
    if let Some(object) = value.as_object_mut() {
        if !found.Architectures.is_empty() {
            object.insert("architectures".into(), json!(found.Architectures));
        }
        if !found.Flags.is_empty() {
            object.insert("flags".into(), json!(found.Flags));
        }
    }
    Ok(value)
}

fn seccomp_argument(argument: &oci::LinuxSeccompArg) -> Value {
    json!({
        "index": argument.Index,
        "value": argument.Value,
        "valueTwo": argument.ValueTwo,
        "op": argument.Op,
    })
}
