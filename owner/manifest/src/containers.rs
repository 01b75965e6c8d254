//! One container of a manifest.

use ah_pod::{
    Container, EnvVar, ImageFacts, Port, Protocol, Resources, Role, Text, VolumeMount, expand,
};
use k8s_openapi::api::core::v1::{self as api};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

use crate::error::ManifestError;
use crate::quantity::Quantity;
use crate::template::{PodContext, bytes, missing, no_image, require, value};
use crate::volumes::relative;
use crate::{choices, env, identity};

/// Default of `terminationMessagePath` (Kubernetes API).
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The container, without its image's facts.
pub(crate) fn container(
    context: &PodContext<'_>,
    container: &api::Container,
    is_init: bool,
    path: &str,
) -> Result<Container, ManifestError> {
    let env = env::variables(context, container, path)?;
    let lookup = |name: &str| {
        env.iter().find(|variable| variable.name == name).map(|variable| variable.value.clone())
    };
    let expanded = |texts: &Option<Vec<String>>| -> Vec<Text> {
        texts.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    Ok(Container {
        name: container.name.clone(),
        role: role(container, is_init, path)?,
        image: ImageFacts { stop_signal: stop_signal(container), ..no_image() },
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: working_dir(container, path)?,
        security: identity::security(context, container, path)?,
        resources: resources(container, path)?,
        mounts: mounts(container, &env, path)?,
        ports: ports(container, path)?,
        tty: container.tty.unwrap_or(false),
        stdin: choices::stdin(context, container)?,
        stdin_once: container.stdin_once.unwrap_or(false),
        termination_message_path: termination_path(container, path)?,
        execs: execs(context, container, path)?,
        choices: choices::of(context, container, &env)?,
        release_socket: context.choices.release_socket.contains(&container.name),
        env,
    })
}

fn stop_signal(container: &api::Container) -> Option<String> {
    container.lifecycle.as_ref()?.stop_signal.clone()
}

fn role(container: &api::Container, is_init: bool, path: &str) -> Result<Role, ManifestError> {
    match (container.restart_policy.as_deref(), is_init) {
        (None, true) => Ok(Role::Init),
        (None, false) => Ok(Role::Main),
        (Some("Always"), true) => Ok(Role::Sidecar),
        (Some(found), _) => {
            let expected = "Always on an init container, else unset";
            Err(value(&format!("{path}.restartPolicy"), found, expected))
        }
    }
}

fn working_dir(container: &api::Container, path: &str) -> Result<Option<String>, ManifestError> {
    let Some(dir) = container.working_dir.as_deref().filter(|dir| !dir.is_empty()) else {
        return Ok(None);
    };
    require(&format!("{path}.workingDir"), dir, "an absolute path without ..", is_plain_path)?;
    Ok(Some(dir.into()))
}

fn termination_path(container: &api::Container, path: &str) -> Result<String, ManifestError> {
    let found = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let found = found.unwrap_or(TERMINATION_LOG);
    let path = format!("{path}.terminationMessagePath");
    require(&path, found, "an absolute path of letters, digits, ., _, - and /", |found| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        is_plain_path(found) && !found.ends_with('/') && found.chars().all(plain)
    })?;
    Ok(found.into())
}

/// Absolute, below the root, and nothing in it goes up.
fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}

fn resources(container: &api::Container, path: &str) -> Result<Resources, ManifestError> {
    let resources = container.resources.clone().unwrap_or_default();
    let path = format!("{path}.resources");
    let read = |map: Option<BTreeMap<String, ApiQuantity>>, part: &str| {
        let mut found = (None, None, None);
        for (name, quantity) in map.unwrap_or_default() {
            let path = format!("{path}.{part}.{name}");
            match name.as_str() {
                "cpu" => found.0 = Some(milli(&path, &quantity.0)?),
                "memory" => found.1 = Some(bytes(&path, &quantity.0)?),
                "ephemeral-storage" => found.2 = Some(bytes(&path, &quantity.0)?),
                other => return Err(value(&path, other, "cpu, memory or ephemeral-storage")),
            }
        }
        Ok(found)
    };
    // what is stored is only limited: its request is for the scheduler
    let (cpu_request_milli, memory_request_bytes, stored_request_bytes) =
        read(resources.requests, "requests")?;
    let (cpu_limit_milli, memory_limit_bytes, storage_limit_bytes) =
        read(resources.limits, "limits")?;
    for (name, request, limit) in [
        ("cpu", cpu_request_milli, cpu_limit_milli),
        ("memory", memory_request_bytes, memory_limit_bytes),
        ("ephemeral-storage", stored_request_bytes, storage_limit_bytes),
    ] {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let path = format!("{path}.requests.{name}");
            return Err(value(&path, &request.to_string(), &format!("at most the limit {limit}")));
        }
    }
    Ok(Resources {
        cpu_request_milli,
        cpu_limit_milli,
        memory_request_bytes,
        memory_limit_bytes,
        storage_limit_bytes,
    })
}

pub(crate) fn milli(path: &str, text: &str) -> Result<u64, ManifestError> {
    Quantity::parse(text)
        .and_then(Quantity::milli)
        .ok_or_else(|| value(path, text, "a quantity of CPUs"))
}

fn mounts(
    container: &api::Container,
    env: &[EnvVar],
    path: &str,
) -> Result<Vec<VolumeMount>, ManifestError> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let sub_path = sub_path(mount, env, &format!("{path}.volumeMounts[{index}]"))?;
        let path = format!("{path}.volumeMounts[{index}].mountPath");
        require(
            &path,
            &mount.mount_path,
            "an absolute path below /, without ., .. and :",
            |path| {
                let below_root = !path.trim_matches('/').is_empty();
                is_plain_path(path)
                    && below_root
                    && !path.contains(':')
                    && path.split('/').all(|part| part != ".")
            },
        )?;
        if mounts.iter().any(|other| other.path == mount.mount_path) {
            return Err(value(&path, &mount.mount_path, "a path that no other mount has"));
        }
        mounts.push(VolumeMount {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or(false),
            sub_path,
        });
    }
    Ok(mounts)
}

/// The part of the volume, where the mount is of a part.
fn sub_path(
    mount: &api::VolumeMount,
    env: &[EnvVar],
    path: &str,
) -> Result<Option<String>, ManifestError> {
    let written = mount.sub_path.as_deref().unwrap_or_default();
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    let (path, found) = match (written, expression) {
        (written, "") => (format!("{path}.subPath"), written.to_owned()),
        ("", expression) => {
            let path = format!("{path}.subPathExpr");
            let found = expanded_path(expression, env, &path)?;
            (path, found)
        }
        (_, both) => {
            return Err(value(&format!("{path}.subPathExpr"), both, "subPath or subPathExpr"));
        }
    };
    require(&path, &found, "a relative path without ..", |found| {
        !found.starts_with('/')
            && !found.chars().any(char::is_control)
            && found.split('/').all(|part| part != "..")
    })?;
    Ok(Some(relative(&found)).filter(|sub_path| !sub_path.is_empty()))
}

/// The kubelet starts no container of which a variable is missing. A value of the cluster would let the host choose the part, and
/// one of a Secret would stand in the open where the mount is shown.
fn expanded_path(expression: &str, env: &[EnvVar], path: &str) -> Result<String, ManifestError> {
    let missing = std::cell::OnceCell::new();
    let text = expand(expression, |name| {
        let found = env.iter().find(|variable| variable.name == name);
        if found.is_none() {
            missing.get_or_init(|| name.to_owned());
        }
        found.map(|variable| variable.value.clone())
    });
    if let Some(name) = missing.get() {
        return Err(value(path, name, "variables that the container has"));
    }
    match text.as_literal() {
        Some(literal) if !text.is_secret() => Ok(literal.to_owned()),
        _ => Err(value(path, expression, "values of the manifest alone, and of no Secret")),
    }
}

fn ports(container: &api::Container, path: &str) -> Result<Vec<Port>, ManifestError> {
    let port = |path: &str, port: i32| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(value(path, &port.to_string(), "a port from 1 to 65535")),
    };
    let mut ports = Vec::new();
    for (index, found) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let host_port = match found.host_port {
            None | Some(0) => None,
            Some(found) => Some(port(&format!("{path}.hostPort"), found)?),
        };
        ports.push(Port {
            container_port: port(&format!("{path}.containerPort"), found.container_port)?,
            host_port,
            host_ip: found.host_ip.clone().filter(|ip| !ip.is_empty()),
            protocol: match found.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
        });
    }
    Ok(ports)
}

/// Commands that the host may run: those of probes and lifecycle handlers, and the owner's choice.
fn execs(
    context: &PodContext<'_>,
    container: &api::Container,
    path: &str,
) -> Result<Vec<Vec<String>>, ManifestError> {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let mut execs: Vec<Vec<String>> = Vec::new();
    let mut add = |command: Vec<String>| {
        if !execs.contains(&command) {
            execs.push(command);
        }
    };
    for (field, probe) in probes {
        if let Some(exec) = probe.as_ref().and_then(|probe| probe.exec.as_ref()) {
            let command = command(exec, &format!("{path}.{field}.exec"))?;
            add(command.iter().map(|text| static_expand(container, text)).collect());
        }
    }
    let lifecycle = container.lifecycle.clone().unwrap_or_default();
    for (field, handler) in [("postStart", lifecycle.post_start), ("preStop", lifecycle.pre_stop)] {
        if let Some(exec) = handler.and_then(|handler| handler.exec) {
            add(command(&exec, &format!("{path}.lifecycle.{field}.exec"))?);
        }
    }
    choices::execs(context, container).filter_map(|command| choices::exact(command)).for_each(add);
    Ok(execs)
}

fn command(exec: &api::ExecAction, path: &str) -> Result<Vec<String>, ManifestError> {
    let command = exec.command.clone().unwrap_or_default();
    match command.is_empty() {
        true => Err(missing(&format!("{path}.command"), "a command")),
        false => Ok(command),
    }
}

/// The kubelet expands probe commands with the values written in `env` alone: not yet expanded
/// themselves, and empty where the value comes from elsewhere.
fn static_expand(container: &api::Container, text: &str) -> String {
    let lookup = |name: &str| {
        let mut found = container.env.iter().flatten().filter(|variable| variable.name == name);
        found.next_back().map(|variable| Text::from(variable.value.clone().unwrap_or_default()))
    };
    expand(text, lookup).as_literal().unwrap_or_default().to_owned()
}
