//! A request's OCI spec becomes the runtime's, strictly: what the guest does not carry out is an error, never left out silently.
//!
//! Three fields are replaced instead of carried out, because the guest decides them: the cgroup's path, the namespaces' paths
//! (ipc and uts are the sandbox's, the cgroup namespace is always fresh), and the root's path, which the caller has checked.

use std::path::{Path, PathBuf};

use ah_agent_api::oci;
use libcontainer::oci_spec::runtime::{Process, Spec};
use serde_json::{Map, Value, json};

use crate::spec_parts::{capabilities, mounts, namespaces, resources, seccomp};

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A message that must be there is not.
    #[error("{field}: found none, expected one")]
    Missing {
        /// Its path in the spec.
        field: &'static str,
    },
    /// The guest cannot carry it out.
    #[error("{field}: found {found:?}, which the guest does not carry out")]
    NotSupported {
        /// Its path in the spec.
        field: &'static str,
        /// Its value or key.
        found: String,
    },
    /// Not of the form it must have.
    #[error("{field}: found {found:?}, expected {expected}")]
    Value {
        /// Its path in the spec.
        field: &'static str,
        /// Its value.
        found: String,
        /// The form.
        expected: &'static str,
    },
    /// The runtime's own spec type would have lost or refused a part of it.
    #[error("runtime spec: {detail}")]
    Runtime {
        /// What.
        detail: String,
    },
}

impl SpecError {
    pub(crate) fn unsupported(field: &'static str, found: impl ToString) -> Self {
        Self::NotSupported { field, found: found.to_string() }
    }

    pub(crate) fn value(field: &'static str, found: impl ToString, expected: &'static str) -> Self {
        Self::Value { field, found: found.to_string(), expected }
    }
}

/// What the guest decides for a container.
#[derive(Debug, Clone)]
pub struct SpecContext {
    /// The verified root.
    pub root: PathBuf,
    /// Path of the cgroup below the cgroup mount, with a leading slash.
    pub cgroup: PathBuf,
    /// The sandbox's hostname.
    pub hostname: String,
    /// The user's home, used when Env has no HOME.
    pub home: String,
    /// First process of the pid namespace that all containers share, if they share one.
    pub shared_pid: Option<i32>,
}

/// What the guest decides for one more process of a container.
#[derive(Debug, Clone)]
pub struct ExecContext {
    /// The user's home, used when Env has no HOME.
    pub home: String,
}

/// The runtime's spec of a container, as the JSON of `config.json`.
///
/// # Errors
/// [`SpecError`] naming the field.
pub fn container_spec(spec: &oci::Spec, context: &SpecContext) -> Result<Value, SpecError> {
    if !spec.Version.starts_with("1.") {
        return Err(SpecError::value("Version", &spec.Version, "1.x"));
    }
    if spec.Solaris.is_some() || spec.Windows.is_some() {
        return Err(SpecError::unsupported("Solaris, Windows", "a message"));
    }
    if !spec.Hostname.is_empty() && spec.Hostname != context.hostname {
        return Err(SpecError::value("Hostname", &spec.Hostname, "the sandbox's hostname"));
    }
    refuse_hooks(spec)?;
    let process = spec.Process.as_ref().ok_or(SpecError::Missing { field: "Process" })?;
    let root = spec.Root.as_ref().ok_or(SpecError::Missing { field: "Root" })?;
    let value = json!({
        "ociVersion": spec.Version,
        "process": process_value(process, &context.home)?,
        "root": { "path": context.root, "readonly": root.Readonly },
        "mounts": mounts(&spec.Mounts)?,
        "linux": linux(spec, context)?,
    });
    check_lossless::<Spec>(&value)?;
    Ok(value)
}

/// The runtime's process of an exec, as JSON.
///
/// # Errors
/// [`SpecError`] naming the field.
pub fn exec_process(process: &oci::Process, context: &ExecContext) -> Result<Value, SpecError> {
    let value = process_value(process, &context.home)?;
    check_lossless::<Process>(&value)?;
    Ok(value)
}

fn refuse_hooks(spec: &oci::Spec) -> Result<(), SpecError> {
    let Some(hooks) = spec.Hooks.as_ref() else {
        return Ok(());
    };
    let lists = [
        &hooks.Prestart,
        &hooks.Poststart,
        &hooks.Poststop,
        &hooks.CreateRuntime,
        &hooks.CreateContainer,
        &hooks.StartContainer,
    ];
    match lists.into_iter().flatten().next() {
        Some(hook) => Err(SpecError::unsupported("Hooks", &hook.Path)),
        None => Ok(()),
    }
}

fn process_value(process: &oci::Process, home: &str) -> Result<Value, SpecError> {
    if !process.ApparmorProfile.is_empty() {
        return Err(SpecError::unsupported("Process.ApparmorProfile", &process.ApparmorProfile));
    }
    if !process.SelinuxLabel.is_empty() {
        return Err(SpecError::unsupported("Process.SelinuxLabel", &process.SelinuxLabel));
    }
    let user = process.User.as_ref().ok_or(SpecError::Missing { field: "Process.User" })?;
    if !user.Username.is_empty() {
        return Err(SpecError::unsupported("Process.User.Username", &user.Username));
    }
    // -1000 to 1000: proc(5), oom_score_adj. Written even when it is 0, since the maker's own value would be inherited.
    let oom =
        i32::try_from(process.OOMScoreAdj).ok().filter(|v| (-1000..=1000).contains(v)).ok_or_else(
            || SpecError::value("Process.OOMScoreAdj", process.OOMScoreAdj, "-1000 to 1000"),
        )?;
    let mut value = Map::new();
    value.insert("user".into(), user_value(user));
    value.insert("args".into(), json!(arguments(process)?));
    value.insert("env".into(), json!(environment(process, home)?));
    value.insert("cwd".into(), json!(absolute("Process.Cwd", &process.Cwd)?));
    value.insert("capabilities".into(), capabilities(process.Capabilities.as_ref())?);
    value.insert("oomScoreAdj".into(), json!(oom));
    if process.Terminal {
        value.insert("terminal".into(), json!(true));
    } else if process.ConsoleSize.as_ref().is_some_and(|b| b.Height != 0 || b.Width != 0) {
        return Err(SpecError::unsupported("Process.ConsoleSize", "a size without a terminal"));
    }
    // Left out when false: libcontainer reads any value as "the filter is loaded after the capabilities are dropped".
    if process.NoNewPrivileges {
        value.insert("noNewPrivileges".into(), json!(true));
    }
    if !process.Rlimits.is_empty() {
        let limits: Vec<Value> = process
            .Rlimits
            .iter()
            .map(|l| json!({ "type": l.Type, "hard": l.Hard, "soft": l.Soft }))
            .collect();
        value.insert("rlimits".into(), Value::Array(limits));
    }
    Ok(Value::Object(value))
}

fn user_value(user: &oci::User) -> Value {
    let mut value = json!({ "uid": user.UID, "gid": user.GID });
    if let (Some(object), false) = (value.as_object_mut(), user.AdditionalGids.is_empty()) {
        object.insert("additionalGids".into(), json!(user.AdditionalGids));
    }
    value
}

fn arguments(process: &oci::Process) -> Result<&[String], SpecError> {
    if process.Args.first().is_none_or(String::is_empty) {
        return Err(SpecError::Missing { field: "Process.Args" });
    }
    match process.Args.iter().find(|a| a.contains('\0')) {
        Some(bad) => Err(SpecError::value("Process.Args", bad, "no zero byte")),
        None => Ok(&process.Args),
    }
}

fn environment(process: &oci::Process, home: &str) -> Result<Vec<String>, SpecError> {
    let mut all = Vec::with_capacity(process.Env.len().saturating_add(1));
    for entry in &process.Env {
        let name = entry.split_once('=').map(|(name, _)| name);
        if name.is_none_or(str::is_empty) || entry.contains('\0') {
            return Err(SpecError::value("Process.Env", entry, "NAME=value without a zero byte"));
        }
        all.push(entry.clone());
    }
    if !all.iter().any(|e| e.starts_with("HOME=")) {
        all.push(format!("HOME={home}"));
    }
    Ok(all)
}

fn linux(spec: &oci::Spec, context: &SpecContext) -> Result<Value, SpecError> {
    let linux = spec.Linux.as_ref().ok_or(SpecError::Missing { field: "Linux" })?;
    if !linux.UIDMappings.is_empty() || !linux.GIDMappings.is_empty() {
        return Err(SpecError::unsupported("Linux.UIDMappings, GIDMappings", "a mapping"));
    }
    if let Some(name) = linux.Sysctl.keys().next() {
        return Err(SpecError::unsupported("Linux.Sysctl", name));
    }
    if !linux.MountLabel.is_empty() {
        return Err(SpecError::unsupported("Linux.MountLabel", &linux.MountLabel));
    }
    if linux.IntelRdt.is_some() {
        return Err(SpecError::unsupported("Linux.IntelRdt", "a message"));
    }
    if let Some(device) = linux.Devices.first() {
        return Err(SpecError::unsupported("Linux.Devices", &device.Path));
    }
    // A container's mounts are never shared with the guest's, whichever of these is asked for.
    if !matches!(linux.RootfsPropagation.as_str(), "" | "private" | "rprivate" | "slave" | "rslave")
    {
        return Err(SpecError::unsupported("Linux.RootfsPropagation", &linux.RootfsPropagation));
    }
    let mut value = Map::new();
    value.insert("cgroupsPath".into(), json!(context.cgroup));
    value.insert("namespaces".into(), namespaces(linux, context.shared_pid)?);
    value.insert(
        "maskedPaths".into(),
        json!(absolute_all("Linux.MaskedPaths", &linux.MaskedPaths)?),
    );
    value.insert(
        "readonlyPaths".into(),
        json!(absolute_all("Linux.ReadonlyPaths", &linux.ReadonlyPaths)?),
    );
    if let Some(found) = linux.Resources.as_ref() {
        value.insert("resources".into(), resources(found)?);
    }
    if let Some(found) = linux.Seccomp.as_ref() {
        value.insert("seccomp".into(), seccomp(found)?);
    }
    Ok(Value::Object(value))
}

/// An absolute path in which no component goes up.
pub(crate) fn absolute<'a>(field: &'static str, path: &'a str) -> Result<&'a str, SpecError> {
    let fine = path.starts_with('/')
        && !path.contains('\0')
        && Path::new(path).components().all(|c| !matches!(c, std::path::Component::ParentDir));
    if fine { Ok(path) } else { Err(SpecError::value(field, path, "an absolute path without ..")) }
}

fn absolute_all<'a>(field: &'static str, paths: &'a [String]) -> Result<Vec<&'a str>, SpecError> {
    paths.iter().map(|p| absolute(field, p)).collect()
}

/// Reads `value` as the runtime does and compares: a key that its type does not know would be dropped by it without a word.
fn check_lossless<T>(value: &Value) -> Result<(), SpecError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let runtime = |e: serde_json::Error| SpecError::Runtime { detail: e.to_string() };
    let read: T = serde_json::from_value(value.clone()).map_err(runtime)?;
    let again = serde_json::to_value(read).map_err(runtime)?;
    match difference("", value, &again) {
        None => Ok(()),
        Some(detail) => Err(SpecError::Runtime { detail }),
    }
}

/// The first path at which `after` lacks or changes what `before` has. Lists are compared as sets where the runtime keeps sets.
fn difference(path: &str, before: &Value, after: &Value) -> Option<String> {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match b.get(key) {
                None => Some(format!("{path} is not known to the runtime")),
                Some(other) => difference(&path, value, other),
            }
        }),
        (Value::Array(a), Value::Array(b)) if path.contains(".capabilities.") => {
            let same = a.iter().all(|v| b.contains(v)) && b.iter().all(|v| a.contains(v));
            (!same).then(|| format!("{path} is read differently by the runtime"))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(x, y)| difference(&format!("{path}[]"), x, y))
        }
        _ if before == after => None,
        _ => Some(format!("{path} is read differently by the runtime")),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
