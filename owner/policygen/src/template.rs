//! Requests for placeholder values, and where to read each value in the incoming request.

use std::collections::BTreeSet;

use ah_pod::placeholder;
use serde_json::Value;

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

/// One reading for each placeholder of the request.
///
/// # Errors
/// [`GenerateError::NoPlace`] when a value stands nowhere where it can be told from its surroundings.
pub(crate) fn reads(request: &Value) -> Result<Vec<Read>, GenerateError> {
    let places = places(request);
    let mut names = BTreeSet::new();
    collect(request, &mut names);
    names
        .into_iter()
        .map(|name| {
            places
                .iter()
                .find_map(|place| place.read(&name))
                .ok_or(GenerateError::NoPlace { placeholder: name })
        })
        .collect()
}

/// A text of the request that the rules can get at (`texts` in the rules).
struct Place<'a> {
    of: &'static str,
    at: Value,
    text: &'a str,
}

fn places(request: &Value) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for of in ["container_id", "sandbox_id", "hostname"] {
        if let Some(text) = request.get(of).and_then(Value::as_str) {
            places.push(Place { of, at: "".into(), text });
        }
    }
    for (of, pointer) in [("CgroupsPath", "/OCI/Linux/CgroupsPath"), ("Hostname", "/OCI/Hostname")]
    {
        let text = request.pointer(pointer).and_then(Value::as_str);
        places.extend(text.map(|text| Place { of, at: "".into(), text }));
    }
    let annotations = request.pointer("/OCI/Annotations").and_then(Value::as_object);
    for (key, value) in annotations.into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        places.push(Place { of: "Annotations", at: key.as_str().into(), text });
    }
    let env = request.pointer("/OCI/Process/Env").and_then(Value::as_array);
    for text in env.into_iter().flatten().filter_map(Value::as_str) {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        places.push(Place { of: "Env", at: name.into(), text });
    }
    let lists = [
        ("Mounts", request.pointer("/OCI/Mounts"), "/source"),
        ("storages", request.get("storages"), "/source"),
    ];
    for (of, list, inner) in lists {
        for (index, value) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
            if let Some(text) = value.pointer(inner).and_then(Value::as_str) {
                places.push(Place { of, at: index.into(), text });
            }
        }
    }
    places
}

impl Place<'_> {
    /// The value must stand there once, and everything around it must have a known length.
    fn read(&self, name: &str) -> Option<Read> {
        let (before, after) = self.text.split_once(name)?;
        let (skip, tail) = (chars(before)?, chars(after)?);
        (!after.contains(name)).then(|| Read {
            p: name.to_owned(),
            kind: kind(name).to_owned(),
            of: self.of.to_owned(),
            at: self.at.clone(),
            skip,
            tail,
        })
    }
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
        // No rule bounds this kind, so a request that needs it is denied.
        _ => "unknown",
    }
}
