//! Values as types of the API, whole: what a type does not know is an error with its path.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem};

/// A path inside an object and what is wrong there.
pub(crate) type Failure = (String, Problem);

/// Deserialises and refuses whatever the type does not know.
pub(crate) fn strict<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| dotted(&path));
    };
    // one type of callback for all types, so that each type's code is compiled once
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut note;
    let read: Result<T, serde_json::Error> = serde_ignored::deserialize(value, note);
    match (unknown, read) {
        (Some(path), _) => Err((path, Problem::UnknownField)),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => {
            let path = type_error_path::<T>(value).unwrap_or_default();
            Err((path, Problem::Type { detail: error.to_string() }))
        }
    }
}

/// An error at a path below another.
pub(crate) fn below(path: &str) -> impl Fn(Failure) -> ManifestError + use<> {
    let path = path.to_owned();
    move |(inner, problem)| {
        ManifestError::new(Place { path: join(&path, &inner), ..Place::default() }, problem)
    }
}

/// Joins two paths, each of which may be empty.
pub(crate) fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", field) => field.into(),
        (path, "") => path.into(),
        (path, field) if field.starts_with('[') => format!("{path}{field}"),
        (path, field) => format!("{path}.{field}"),
    }
}

/// The value at a path such as `spec.containers[0].image`; an empty path is the value itself.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    use crate::yaml::{Step, steps};
    steps(path).try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

/// The path in Kubernetes' form: `a.b[0].c`.
fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => join(&dotted(parent), key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

/// The deepest field without which the object would be readable: where the type error is.
fn type_error_path<T: DeserializeOwned>(value: &Value) -> Option<String> {
    let mut path = String::new();
    let mut pointer = String::new();
    loop {
        let children: Vec<(String, String, String)> = match value.pointer(&pointer)? {
            Value::Object(map) => map
                .keys()
                .map(|key| {
                    (key.clone(), key.replace('~', "~0").replace('/', "~1"), join(&path, key))
                })
                .collect(),
            Value::Array(items) => (0..items.len())
                .map(|index| (index.to_string(), index.to_string(), format!("{path}[{index}]")))
                .collect(),
            _ => return Some(path),
        };
        let culprit = children.into_iter().find(|(key, ..)| {
            let mut copy = value.clone();
            remove(&mut copy, &pointer, key) && serde_json::from_value::<T>(copy).is_ok()
        });
        let Some((_, escaped, child)) = culprit else { return Some(path) };
        pointer = format!("{pointer}/{escaped}");
        path = child;
    }
}

fn remove(value: &mut Value, pointer: &str, key: &str) -> bool {
    match value.pointer_mut(pointer) {
        Some(Value::Object(map)) => map.remove(key).is_some(),
        Some(Value::Array(items)) => match key.parse() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}
