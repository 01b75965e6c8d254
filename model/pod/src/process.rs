//! Arguments, environment, working directory and capabilities of a container's process.

use ah_agent_api::oci;

use crate::requests::RequestError;
use crate::{Container, HostValues, Pod, Text, users};

/// `PATH` of a container whose image and manifest set none (containerd `oci.WithDefaultPathEnv`).
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// containerd's default capabilities (`oci.WithDefaultUnixCaps`), in its order.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Every capability of Linux 5.9 and later, by number (capabilities(7), linux/capability.h).
pub const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

pub(crate) fn workload(
    pod: &Pod,
    container: &Container,
    host: &HostValues,
) -> Result<oci::Process, RequestError> {
    let user = users::workload(pod, container)?;
    Ok(oci::Process {
        Terminal: container.tty,
        User: Some(oci_user(user)).into(),
        Args: args(container, host)?,
        Env: env(pod, container, host),
        Cwd: cwd(container),
        Capabilities: Some(capability_sets(capabilities(container)?)).into(),
        NoNewPrivileges: container.security.no_new_privileges,
        OOMScoreAdj: crate::resources::oom_score_adj(pod, container, host.node_memory_bytes),
        ..Default::default()
    })
}

/// The process of the sandbox container, which the guest never starts.
pub(crate) fn sandbox(pod: &Pod) -> Result<oci::Process, RequestError> {
    let user = users::sandbox(pod.security.run_as)?;
    Ok(oci::Process {
        User: Some(oci_user(user)).into(),
        Args: vec!["/pause".into()],
        Env: vec![DEFAULT_PATH.into()],
        Cwd: "/".into(),
        Capabilities: Some(capability_sets(owned(&DEFAULT_CAPABILITIES))).into(),
        NoNewPrivileges: true,
        OOMScoreAdj: crate::resources::SANDBOX_OOM_SCORE_ADJ,
        ..Default::default()
    })
}

fn oci_user(user: users::User) -> oci::User {
    oci::User {
        UID: user.uid,
        GID: user.gid,
        AdditionalGids: user.additional_gids,
        ..Default::default()
    }
}

/// `command` replaces entrypoint and cmd, `args` replaces cmd only (containerd `WithProcessArgs`).
fn args(container: &Container, host: &HostValues) -> Result<Vec<String>, RequestError> {
    let render = |texts: &[Text]| texts.iter().map(|text| text.render(host)).collect::<Vec<_>>();
    let image = &container.image;
    let mut command = render(&container.command);
    let mut args = render(&container.args);
    if command.is_empty() {
        if args.is_empty() {
            args = image.cmd.clone();
        }
        if image.entrypoint != [""] {
            command = image.entrypoint.clone();
        }
    }
    command.append(&mut args);
    match command.is_empty() {
        true => Err(RequestError::NoCommand { container: container.name.clone() }),
        false => Ok(command),
    }
}

/// Default `PATH`, `TERM` with a terminal, `HOSTNAME`, the image's, the manifest's: a later value
/// takes the place of the earlier one (containerd `containerSpec`).
fn env(pod: &Pod, container: &Container, host: &HostValues) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if container.tty {
        env.push("TERM=xterm".into());
    }
    env.push(format!("HOSTNAME={}", pod.hostname(host)));
    let own = container.env.iter().map(|var| format!("{}={}", var.name, var.value.render(host)));
    for entry in container.image.env.iter().cloned().chain(own) {
        replace_or_append(&mut env, entry);
    }
    env
}

fn replace_or_append(env: &mut Vec<String>, entry: String) {
    let Some((name, _)) = entry.split_once('=') else {
        // containerd: a bare name removes the variable
        env.retain(|old| old.split_once('=').map(|(name, _)| name) != Some(entry.as_str()));
        return;
    };
    let same = |old: &&mut String| old.split_once('=').map(|(old, _)| old) == Some(name);
    match env.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn cwd(container: &Container) -> String {
    let own = container.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let image = Some(container.image.working_dir.as_str()).filter(|dir| !dir.is_empty());
    own.or(image).unwrap_or("/").to_owned()
}

/// Adds before it drops, `ALL` first (containerd `WithCapabilities`).
pub(crate) fn capabilities(container: &Container) -> Result<Vec<String>, RequestError> {
    let security = &container.security;
    let names = |list: &[String]| -> Result<Vec<String>, RequestError> {
        list.iter()
            .map(|name| name.to_uppercase())
            .filter(|name| name != "ALL")
            .map(|name| match format!("CAP_{name}") {
                known if ALL_CAPABILITIES.contains(&known.as_str()) => Ok(known),
                _ => {
                    Err(RequestError::UnknownCapability { container: container.name.clone(), name })
                }
            })
            .collect()
    };
    let (add, drop) = (names(&security.capabilities_add)?, names(&security.capabilities_drop)?);
    if security.privileged {
        return Ok(owned(&ALL_CAPABILITIES));
    }
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut caps = match (all(&security.capabilities_add), all(&security.capabilities_drop)) {
        (_, true) => Vec::new(),
        (true, false) => owned(&ALL_CAPABILITIES),
        (false, false) => owned(&DEFAULT_CAPABILITIES),
    };
    for name in add {
        if !caps.contains(&name) {
            caps.push(name);
        }
    }
    caps.retain(|name| !drop.contains(name));
    Ok(caps)
}

/// Nothing inheritable, nothing ambient (containerd since 1.6.2).
fn capability_sets(caps: Vec<String>) -> oci::LinuxCapabilities {
    oci::LinuxCapabilities {
        Bounding: caps.clone(),
        Effective: caps.clone(),
        Permitted: caps,
        ..Default::default()
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, host, pod};
    use crate::{EnvVar, HostFact};

    fn texts(list: &[&str]) -> Vec<Text> {
        list.iter().map(|text| (*text).into()).collect()
    }

    #[test]
    fn command_and_args_replace_what_kubernetes_says_they_replace() {
        let check =
            |entrypoint: &[&str], cmd: &[&str], command: &[&str], own: &[&str], expect: &[&str]| {
                let mut container = container("app");
                container.image.entrypoint = owned(entrypoint);
                container.image.cmd = owned(cmd);
                container.command = texts(command);
                container.args = texts(own);
                let found = args(&container, &host(&pod(vec![])));
                match expect {
                    [] => {
                        assert_eq!(found, Err(RequestError::NoCommand { container: "app".into() }))
                    }
                    _ => assert_eq!(found, Ok(owned(expect))),
                }
            };
        check(&["e"], &["c"], &[], &[], &["e", "c"]);
        check(&["e"], &["c"], &["x"], &[], &["x"]);
        check(&["e"], &["c"], &[], &["a"], &["e", "a"]);
        check(&["e"], &["c"], &["x"], &["a"], &["x", "a"]);
        check(&[], &["c"], &[], &[], &["c"]);
        check(&[""], &["c"], &[], &[], &["c"]);
        check(&["e"], &[], &[], &[], &["e"]);
        check(&[], &[], &[], &["a"], &["a"]);
        check(&[], &[], &[], &[], &[]);
    }

    #[test]
    fn env_is_in_containerds_order_and_the_last_value_counts() {
        let check = |image: &[&str], own: &[(&str, &str)], tty, expect: &[&str]| {
            let mut container = container("app");
            container.image.env = owned(image);
            container.env = own
                .iter()
                .map(|(name, value)| EnvVar { name: (*name).into(), value: (*value).into() })
                .collect();
            container.tty = tty;
            let pod = pod(vec![]);
            assert_eq!(env(&pod, &container, &host(&pod)), expect);
        };
        check(&[], &[], false, &[DEFAULT_PATH, "HOSTNAME=web"]);
        check(&[], &[], true, &[DEFAULT_PATH, "TERM=xterm", "HOSTNAME=web"]);
        check(&["A=1"], &[], false, &[DEFAULT_PATH, "HOSTNAME=web", "A=1"]);
        check(&["PATH=/x", "A=1=2"], &[("A", "3")], false, &["PATH=/x", "HOSTNAME=web", "A=3"]);
        check(&["HOSTNAME=i"], &[("TERM", "t")], true, &[DEFAULT_PATH, "TERM=t", "HOSTNAME=i"]);
        check(&["A=1", "A"], &[], false, &[DEFAULT_PATH, "HOSTNAME=web"]);
        check(&[], &[("E", "")], false, &[DEFAULT_PATH, "HOSTNAME=web", "E="]);
    }

    #[test]
    fn host_facts_are_rendered_in_env_and_args() {
        let mut container = container("app");
        container.command = vec![Text::host(HostFact::PodIp)];
        container.env = vec![EnvVar { name: "N".into(), value: Text::host(HostFact::NodeName) }];
        let pod = pod(vec![]);
        let host = host(&pod);
        assert_eq!(args(&container, &host).unwrap(), ["10.0.2.15"]);
        assert_eq!(env(&pod, &container, &host)[2], "N=node");
        let template = HostValues::placeholders(&pod);
        assert_eq!(args(&container, &template).unwrap(), ["$(pod-ip)"]);
        assert_eq!(env(&pod, &container, &template)[2], "N=$(node-name)");
    }

    #[test]
    fn cwd_is_the_manifests_then_the_images_then_the_root() {
        let check = |own: Option<&str>, image: &str, expect: &str| {
            let mut container = container("app");
            container.working_dir = own.map(Into::into);
            container.image.working_dir = image.into();
            assert_eq!(cwd(&container), expect);
        };
        check(Some("/a"), "/b", "/a");
        check(None, "/b", "/b");
        check(Some(""), "", "/");
    }

    #[test]
    fn capabilities_are_added_then_dropped() {
        let check = |add: &[&str], drop: &[&str], expect: &[&str]| {
            let mut container = container("app");
            container.security.capabilities_add = owned(add);
            container.security.capabilities_drop = owned(drop);
            assert_eq!(capabilities(&container).unwrap(), expect, "+{add:?} -{drop:?}");
        };
        check(&[], &[], &DEFAULT_CAPABILITIES);
        check(&[], &["ALL"], &[]);
        check(&["net_admin"], &["all"], &["CAP_NET_ADMIN"]);
        check(&["KILL"], &["ALL", "KILL"], &[]);
        check(&["ALL"], &[], &ALL_CAPABILITIES);
        check(&["ALL"], &["ALL"], &[]);
        let without_chown: Vec<_> = DEFAULT_CAPABILITIES[1..].to_vec();
        check(&[], &["CHOWN"], &without_chown);
        let mut privileged = container("app");
        privileged.security.privileged = true;
        assert_eq!(capabilities(&privileged).unwrap(), ALL_CAPABILITIES);
        privileged.security.capabilities_add = vec!["CAP_KILL".into()];
        let expect =
            RequestError::UnknownCapability { container: "app".into(), name: "CAP_KILL".into() };
        assert_eq!(capabilities(&privileged), Err(expect));
    }
}
