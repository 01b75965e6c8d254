//! The sides of a policy that people have words for.

use ah_digest::Sha256;
use ah_grant::FragmentSource;
use ah_permit::Secrets;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::data::{ContainerData, PolicyData, Read, SANDBOX};
use crate::show::{Words, layers, patterned, text, texts};

const RELEASE_SOCKET: &str = "/run/anchorhold/release.sock";
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

/// One side, and its values.
pub(crate) struct Aspect {
    pub(crate) what: &'static str,
    pub(crate) items: Vec<Item>,
    /// Whether another order of the same values is another policy.
    pub(crate) ordered: bool,
}

/// One value, as it is and as people may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) raw: String,
    pub(crate) shown: String,
}

fn aspect(what: &'static str, ordered: bool, values: Vec<String>) -> Aspect {
    let items = values.into_iter().map(|raw| Item { shown: raw.clone(), raw }).collect();
    Aspect { what, items, ordered }
}

fn mark(what: &'static str, has: bool, words: &str) -> Aspect {
    aspect(what, false, if has { vec![words.to_owned()] } else { Vec::new() })
}

/// What holds for the whole pod.
pub(crate) fn of_pod(data: &PolicyData) -> Vec<Aspect> {
    let names = data.containers.iter().map(|container| container.name.clone()).collect();
    let sandbox = |field: &str| data.sandbox.request.get(field).map(Value::to_string);
    let mut dns = texts(data.sandbox.request.get("dns"));
    if data.sandbox.dns_from_host {
        dns.push("name servers and search domains of the host's choice".to_owned());
    }
    let kata = data.agent == Agent::Kata;
    vec![
        mark(
            "agent",
            kata,
            "a stock Kata agent enforces it: see `policy show` for what it cannot check",
        ),
        aspect("containers", true, names),
        mark("logs", data.logs, "the host may read what the containers print"),
        mark(
            "before the whole pod",
            !data.whole,
            "keys and execs before every container was created",
        ),
        aspect("fragments", false, data.fragments.iter().map(source).collect()),
        aspect("debug key", false, data.debug_key.map(|key| key.to_string()).into_iter().collect()),
        aspect("files with contents from the host", false, data.files.clone()),
        aspect("pod name", false, vec![data.name_pattern.clone()]),
        aspect("host name", false, sandbox("hostname").into_iter().collect()),
        aspect("dns", true, dns),
        aspect("sandbox storages", true, sandbox("storages").into_iter().collect()),
        aspect("shared process namespace", false, sandbox("sandbox_pidns").into_iter().collect()),
    ]
}

fn source(source: &FragmentSource) -> String {
    let FragmentSource { issuer, key, feed, min_version } = source;
    format!(
        "{issuer} with key {key} may add containers: feed {feed}, version {min_version} and later"
    )
}

/// Members of the policy's data that no aspect reads.
pub(crate) fn others_of_pod(data: &PolicyData) -> Value {
    let read = [
        "agent",
        "common",
        "common_fill",
        "containers",
        "debug_key",
        "files",
        "fragments",
        "logs",
        "name_example",
        "name_pattern",
        "places",
        "sandbox",
        "waits",
        "whole",
    ];
    let sandbox = serde_json::to_value(&data.sandbox).unwrap_or_default();
    let mut others = without(serde_json::to_value(data).unwrap_or_default(), &read);
    if let Some(map) = others.as_object_mut() {
        // Of the sandbox's request the aspects read these members.
        let request = sandbox.get("request").cloned().unwrap_or_default();
        let read = ["hostname", "dns", "storages", "sandbox_pidns"];
        map.insert("sandbox".to_owned(), without(request, &read));
    }
    others
}

/// Members of a container's data that no aspect reads; where values stand follows from the request.
pub(crate) fn others_of_container(container: &ContainerData) -> Value {
    let read = [
        "name",
        "role",
        "restart",
        "stdin",
        "exec_commands",
        "exec_patterns",
        "termination_log",
        "stop_signal",
        "oom_score_adj",
        "read",
        "request",
        "fill",
        "secrets",
        "variants",
    ];
    without(serde_json::to_value(container).unwrap_or_default(), &read)
}

fn without(mut value: Value, members: &[&str]) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !members.contains(&key.as_str()));
    }
    value
}

/// What holds for one container.
pub(crate) fn of_container(data: &PolicyData, container: &ContainerData) -> Vec<Aspect> {
    let request = unnumbered(&data.request(container));
    let secrets = Secrets::of(&container.secrets, &request);
    let process = |field: &str| request.pointer(&format!("/OCI/Process/{field}"));
    let one = |value: Option<&Value>| value.map(Value::to_string).into_iter().collect();
    let mounts = request.pointer("/OCI/Mounts").and_then(Value::as_array);
    let mounts: Vec<String> = mounts.into_iter().flatten().map(mount).collect();
    let (keys, mounts): (Vec<_>, Vec<_>) =
        mounts.into_iter().partition(|mount| mount.starts_with(RELEASE_SOCKET));
    let image = request.pointer("/OCI/Annotations").and_then(|all| all.get(IMAGE_NAME));
    let command = texts(process("Args"));
    let bounds = container.oom_score_adj.map(|[least, most]| format!("{least} to {most}"));
    let execs = container.exec_commands.iter().map(|args| Words(args).to_string());
    let patterns = container.exec_patterns.iter();
    let patterns = patterns.map(|words| patterned(words, &Secrets::default()).join(" "));
    let execs = execs.chain(patterns).collect();
    let role = (container.name != SANDBOX).then(|| container.role.clone());
    let mut aspects = vec![
        aspect("role", false, role.into_iter().collect()),
        aspect("image", false, image.map(|name| text(Some(name))).into_iter().collect()),
        aspect("layers", true, layers(&request)),
        aspect("command", true, vec![Words(&command).to_string()]),
        aspect("working directory", false, one(process("Cwd"))),
        aspect("user", false, one(process("User"))),
        aspect("env", true, texts(process("Env"))),
        aspect("mounts", true, mounts),
        aspect("volumes", true, volumes(&request)),
        aspect("capabilities", true, texts(process("Capabilities/Effective"))),
        aspect("exec", false, execs),
        mark("stdin", container.stdin, "the host may write to it"),
        mark(
            "termination log",
            container.termination_log.is_some(),
            "the host may read its termination message",
        ),
        aspect("stop signal", false, container.stop_signal.iter().map(u32::to_string).collect()),
        aspect("mutable env", false, mutable(container)),
        aspect("release socket", false, keys),
        mark("restart", container.restart, "may be created again after it ended"),
        aspect("oom score", false, bounds.into_iter().collect()),
        aspect("variables from Secrets", false, container.secrets.clone()),
        aspect("other platforms", false, other_platforms(data, container)),
    ];
    for item in aspects.iter_mut().flat_map(|aspect| &mut aspect.items) {
        item.shown = secrets.mask_text(&item.raw);
    }
    // The words of a command may quote a value, so its own masking comes first.
    if let Some(aspect) = aspects.iter_mut().find(|aspect| aspect.what == "command") {
        let masked: Vec<String> = command.iter().map(|word| secrets.mask_text(word)).collect();
        aspect.items.iter_mut().for_each(|item| item.shown = Words(&masked).to_string());
    }
    aspects
}

/// What the container is on each: its layers, and a digest of all of it.
fn other_platforms(data: &PolicyData, container: &ContainerData) -> Vec<String> {
    let others = container.on_other_platforms();
    let words = others.map(|(platform, other)| {
        let request = unnumbered(&data.request(&other));
        let whole = json!([request, other.read, other.volumes]).to_string();
        format!("{platform}: layers {}, in all {}", layers(&request).join(" "), Sha256::of(whole))
    });
    words.collect()
}

/// Variables that the host may choose, each with its bound.
fn mutable(container: &ContainerData) -> Vec<String> {
    let bound = |read: &Read| {
        let bound = read.within.as_ref()?.words();
        Some(format!("{} {bound}", read.env.as_deref().unwrap_or_default()))
    };
    container.read.values().filter_map(bound).collect()
}

fn mount(mount: &Value) -> String {
    let part = |field: &str| text(mount.get(field));
    let options = texts(mount.get("options")).join(",");
    format!("{} -> {} ({}: {options})", part("source"), part("destination"), part("type_"))
}

/// Storages that are neither layers nor the overlay of them.
fn volumes(request: &Value) -> Vec<String> {
    let storages = request.get("storages").and_then(Value::as_array);
    let volumes = storages.into_iter().flatten().filter(|storage| !is_of_image(storage));
    volumes.map(Value::to_string).collect()
}

fn is_of_image(storage: &Value) -> bool {
    let options = texts(storage.get("options"));
    options.iter().any(|option| option.starts_with("X-kata.dmverity."))
        || text(storage.get("fstype")) == "overlay"
}

/// How much of the disks of an image's layers is compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Images {
    /// All: the layers are the same ones.
    Whole,
    /// Their kinds: other layers have other hashes and sizes.
    Shape,
}

/// The request without what [`of_container`] says, so that nothing is said twice and nothing is left out.
pub(crate) fn without_aspects(request: Value, images: Images) -> Value {
    let mut request = unnumbered(&request);
    let storages = request.get("storages").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut kept: Vec<Value> = storages.into_iter().filter(is_of_image).collect();
    if images == Images::Shape {
        kept = kept.iter().map(shape).collect();
        kept.dedup();
    }
    if let Some(map) = request.as_object_mut() {
        map.insert("storages".to_owned(), Value::Array(kept));
    }
    if let Some(map) = request.pointer_mut("/OCI").and_then(Value::as_object_mut) {
        map.remove("Mounts");
    }
    if let Some(map) = request.pointer_mut("/OCI/Process").and_then(Value::as_object_mut) {
        ["Args", "Cwd", "User", "Env"].iter().for_each(|field| drop(map.remove(*field)));
    }
    if let Some(map) =
        request.pointer_mut("/OCI/Process/Capabilities").and_then(Value::as_object_mut)
    {
        map.remove("Effective");
    }
    if let Some(map) = request.pointer_mut("/OCI/Annotations").and_then(Value::as_object_mut) {
        map.remove(IMAGE_NAME);
    }
    request
}

/// A storage of the image without its root hashes, sizes and places.
fn shape(storage: &Value) -> Value {
    let kept = texts(storage.get("options")).into_iter().map(|option| {
        let name = option.split_once('=').map_or(option.as_str(), |(name, _)| name);
        name.to_owned()
    });
    let kept: Vec<String> = kept.collect();
    json!({ "driver": storage.get("driver"), "fstype": storage.get("fstype"), "options": kept,
        "driver_options": storage.get("driver_options"), "fs_group": storage.get("fs_group"),
        "shared": storage.get("shared") })
}

/// The numbers of the generator's placeholders say where a value stands, not what it is.
fn unnumbered(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_numbers(text)),
        Value::Array(values) => values.iter().map(unnumbered).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), unnumbered(value))).collect())
        }
        other => other.clone(),
    }
}

fn without_numbers(text: &str) -> String {
    ["$(file-id-", "$(pci-path-"].iter().fold(text.to_owned(), |text, stem| {
        let mut parts = text.split(stem);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let number = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            out += stem.trim_end_matches('-');
            out += &part[number..];
        }
        out
    })
}
