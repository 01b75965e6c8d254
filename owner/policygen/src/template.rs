//! Requests for placeholder values, and where to read each value in the incoming request.

use std::collections::{BTreeMap, BTreeSet};

use ah_pod::{Container, placeholder};
use serde_json::Value;

use crate::bounds::BoundData;
use crate::data::Read;
use crate::generate::GenerateError;

/// Placeholders that this crate adds: one for each occurrence, where the occurrences may differ.
const CGROUPS_PATH: &str = "$(cgroups-path)";

/// Length of the ids that stand in texts beside other values: 64 hexadecimal digits.
const ID_CHARS: usize = 64;

/// Gives each copied file and each disk its own placeholder, and the cgroup path one as a whole.
pub(crate) fn number(request: &mut Value) {
    let each = |list: Option<&mut Value>, name: &str, stem: &str| {
        for (index, entry) in list.and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            if let Some(Value::String(source)) = entry.get_mut("source") {
                *source = source.replace(name, &format!("$({stem}-{index})"));
            }
        }
    };
    each(request.pointer_mut("/OCI/Mounts"), placeholder::FILE_ID, "file-id");
    each(request.get_mut("storages"), placeholder::PCI_PATH, "pci-path");
    if let Some(path) = request.pointer_mut("/OCI/Linux/CgroupsPath") {
        *path = CGROUPS_PATH.into();
    }
}

/// By placeholder: the owner's bound, and the owner's own value.
pub(crate) type Mutable = BTreeMap<String, (BoundData, String)>;

/// Puts a placeholder in the place of each variable's value that the owner lets the host choose, and says which bound each has.
pub(crate) fn mutable(
    request: &mut Value,
    container: &Container,
) -> Result<Mutable, GenerateError> {
    let mut bounds = BTreeMap::new();
    let env = request.pointer_mut("/OCI/Process/Env").and_then(Value::as_array_mut);
    let Some(env) = env else { return Ok(bounds) };
    for (number, (name, bound)) in container.choices.mutable.iter().enumerate() {
        let place = format!("variable {name} of container {:?}", container.name);
        let data = BoundData::of(bound, &place)?;
        let start = format!("{name}=");
        let is_it = |entry: &&mut Value| entry.as_str().is_some_and(|e| e.starts_with(&start));
        let entry = env.iter_mut().find(is_it);
        let own = entry.as_ref().and_then(|entry| entry.as_str()?.strip_prefix(&start));
        let own = own.unwrap_or_default().to_owned();
        match entry {
            Some(entry) if data.holds(&own) && !own.contains("$(") => {
                let placeholder = format!("{}{number})", placeholder::MUTABLE_STEM);
                *entry = format!("{start}{placeholder}").into();
                bounds.insert(placeholder, (data, own));
            }
            _ => {
                let detail = format!("its own value {own:?} is not within it: {}", data.words());
                return Err(GenerateError::Bound { place, detail });
            }
        }
    }
    Ok(bounds)
}

/// One reading for each placeholder of the request.
///
/// # Errors
/// [`GenerateError::NoPlace`] when a value stands nowhere where it can be told from its surroundings.
pub(crate) fn reads(request: &Value) -> Result<BTreeMap<String, Read>, GenerateError> {
    let places = places(request);
    let mut names = BTreeSet::new();
    collect(request, &mut names);
    let read = |name: String| match places.iter().find_map(|place| place.read(&name)) {
        Some(read) => Ok((name, read)),
        None => Err(GenerateError::NoPlace { placeholder: name }),
    };
    names.into_iter().map(read).collect()
}

/// A text of the request that the rules can get at (`text` in the rules).
struct Place<'a> {
    at: At,
    text: &'a str,
}

enum At {
    Path(Vec<Value>),
    Env(String),
}

fn places(request: &Value) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    let mut add = |path: &[Value]| {
        let text = path.iter().try_fold(request, |value, step| match step {
            Value::String(key) => value.get(key),
            step => value.get(usize::try_from(step.as_u64()?).ok()?),
        });
        if let Some(text) = text.and_then(Value::as_str) {
            places.push(Place { at: At::Path(path.to_vec()), text });
        }
    };
    for member in ["container_id", "sandbox_id", "hostname"] {
        add(&[member.into()]);
    }
    add(&["OCI".into(), "Linux".into(), "CgroupsPath".into()]);
    add(&["OCI".into(), "Hostname".into()]);
    let annotations = request.pointer("/OCI/Annotations").and_then(Value::as_object);
    for key in annotations.into_iter().flat_map(|map| map.keys()) {
        add(&["OCI".into(), "Annotations".into(), key.as_str().into()]);
    }
    let count = |list: Option<&Value>| list.and_then(Value::as_array).map_or(0, Vec::len);
    for index in 0..count(request.pointer("/OCI/Mounts")) {
        add(&["OCI".into(), "Mounts".into(), index.into(), "source".into()]);
    }
    for index in 0..count(request.get("storages")) {
        add(&["storages".into(), index.into(), "source".into()]);
    }
    // Last: each costs a search through the whole environment.
    let env = request.pointer("/OCI/Process/Env").and_then(Value::as_array);
    for text in env.into_iter().flatten().filter_map(Value::as_str) {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        places.push(Place { at: At::Env(name.to_owned()), text });
    }
    places
}

impl Place<'_> {
    /// The value must stand there once, and everything around it must have a known length.
    fn read(&self, name: &str) -> Option<Read> {
        let (before, after) = self.text.split_once(name)?;
        let (skip, tail) = (chars(before)?, chars(after)?);
        let (path, env) = match &self.at {
            At::Path(path) => (path.clone(), None),
            At::Env(name) => (Vec::new(), Some(name.clone())),
        };
        (!after.contains(name)).then(|| Read {
            kind: kind(name).to_owned(),
            path,
            env,
            fact: is_fact(name),
            skip,
            tail,
            within: None,
            example: None,
        })
    }
}

/// Values that are the same everywhere in the pod.
fn is_fact(name: &str) -> bool {
    let facts = [
        placeholder::SANDBOX_ID,
        placeholder::SANDBOX_NAME,
        placeholder::SANDBOX_NAMESPACE,
        placeholder::POD_UID,
        placeholder::NODE_NAME,
        placeholder::POD_IP,
        placeholder::POD_IPS,
        placeholder::HOST_IP,
        placeholder::HOST_IPS,
        placeholder::POD_INDEX,
    ];
    facts.contains(&name) || name.starts_with(placeholder::SERVICE_IP_STEM)
}

/// Whether a text has a placeholder.
pub(crate) fn varies(text: &str) -> bool {
    first(text).is_some()
}

/// Characters of a text whose placeholders are ids only.
fn chars(text: &str) -> Option<usize> {
    let mut count = 0_usize;
    let mut rest = text;
    while let Some(found) = first(rest) {
        let (before, after) = rest.split_once(found.as_str())?;
        if found != placeholder::CONTAINER_ID && found != placeholder::SANDBOX_ID {
            return None;
        }
        count = count.checked_add(before.chars().count())?.checked_add(ID_CHARS)?;
        rest = after;
    }
    count.checked_add(rest.chars().count())
}

/// The first placeholder of a text.
fn first(text: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once("$(")?;
        if let Some((name, _)) = after.split_once(')') {
            let name = format!("$({name})");
            if is_placeholder(&name) {
                return Some(name);
            }
        }
        rest = after;
    }
}

fn is_placeholder(name: &str) -> bool {
    let numbered = |stem: &str| {
        let number = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(')'));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    };
    placeholder::ALL.contains(&name)
        || name == CGROUPS_PATH
        || numbered("$(file-id-")
        || numbered("$(pci-path-")
        || numbered(placeholder::SERVICE_IP_STEM)
        || numbered(placeholder::MUTABLE_STEM)
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let mut rest = text.as_str();
            while let Some(name) = first(rest) {
                rest = rest.split_once(name.as_str()).map_or("", |(_, after)| after);
                names.insert(name);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            collect(&Value::String(key.clone()), names);
            collect(value, names);
        }),
        _ => {}
    }
}

/// The kind that bounds a placeholder's value.
pub(crate) fn kind(name: &str) -> &'static str {
    match name {
        placeholder::CONTAINER_ID | placeholder::SANDBOX_ID => "id",
        placeholder::SANDBOX_NAME => "name",
        placeholder::SANDBOX_NAMESPACE => "label",
        placeholder::POD_UID => "uid",
        placeholder::POD_INDEX => "index",
        placeholder::NODE_NAME => "subdomain",
        placeholder::POD_IP | placeholder::HOST_IP => "address",
        placeholder::POD_IPS | placeholder::HOST_IPS => "addresses",
        CGROUPS_PATH => "cgroups",
        name if name.starts_with("$(file-id-") => "file",
        name if name.starts_with("$(pci-path-") => "pci",
        name if name.starts_with(placeholder::SERVICE_IP_STEM) => "address",
        name if name.starts_with(placeholder::MUTABLE_STEM) => "owner",
        // No rule bounds this kind, so a request that needs it is denied.
        _ => "unknown",
    }
}
