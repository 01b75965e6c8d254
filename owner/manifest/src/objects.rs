//! The objects of a text: its documents, and the items of those that are lists.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem, YamlProblem};
use crate::strict::{below, join, strict};
use crate::yaml::Node;

/// An object with its place.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// Number of its document in the text, from 1.
    pub(crate) document: usize,
    /// Its path in the document; empty where it is the document, `items[0]` in a list.
    pub(crate) path: String,
    /// The object.
    pub(crate) value: Value,
}

/// All objects, in their order.
pub(crate) fn objects(documents: &[Node]) -> Result<Vec<Located>, ManifestError> {
    let mut all = Vec::new();
    for (document, node) in (1..).zip(documents) {
        let whole = Located { document, path: String::new(), value: node.to_json() };
        open(whole, &mut all).map_err(|error| locate(error, document, node))?;
    }
    Ok(all)
}

/// Adds the document and the line to an error that has a path.
pub(crate) fn locate(mut error: ManifestError, document: usize, node: &Node) -> ManifestError {
    error.place.document = document;
    error.place.line = error.place.line.or(Some(node.line_of(&error.place.path)));
    error
}

fn open(object: Located, all: &mut Vec<Located>) -> Result<(), ManifestError> {
    if !object.value.is_object() {
        let problem = YamlProblem::Syntax("object is not a mapping".into());
        let place = Place { path: object.path, ..Place::default() };
        return Err(ManifestError::new(place, problem));
    }
    let text = |key: &str| object.value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
    let is_list = (api_version.as_str(), kind.as_str()) == ("v1", "List")
        || (kind.ends_with("List") && object.value.get("items").is_some_and(Value::is_array));
    match is_list {
        true => items(object, &api_version, &kind, all),
        false => {
            all.push(object);
            Ok(())
        }
    }
}

fn items(
    mut list: Located,
    api_version: &str,
    kind: &str,
    all: &mut Vec<Located>,
) -> Result<(), ManifestError> {
    let fail = below(&list.path);
    let Value::Object(fields) = &mut list.value else { return Ok(()) };
    let items = fields.remove("items").unwrap_or(Value::Null);
    let metadata = fields.get("metadata").cloned().unwrap_or(Value::Null);
    let known = ["apiVersion", "kind", "metadata"];
    if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(fail((unknown.clone(), Problem::UnknownField)));
    }
    strict::<Option<ListMeta>>(&metadata)
        .map_err(|(path, problem)| fail((join("metadata", &path), problem)))?;
    let items = match items {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        other => {
            let detail = format!("found {other}, expected a list");
            return Err(fail(("items".into(), Problem::Type { detail })));
        }
    };
    let item_kind = kind.strip_suffix("List").unwrap_or_default();
    for (index, mut value) in items.into_iter().enumerate() {
        let path = join(&list.path, &format!("items[{index}]"));
        if !item_kind.is_empty() {
            typed(&mut value, api_version, item_kind).map_err(below(&path))?;
        }
        open(Located { document: list.document, path, value }, all)?;
    }
    Ok(())
}

/// Items of a list of one kind may leave out what the list says.
fn typed(item: &mut Value, api_version: &str, kind: &str) -> Result<(), crate::strict::Failure> {
    let Value::Object(fields) = item else { return Ok(()) };
    for (field, expected) in [("apiVersion", api_version), ("kind", kind)] {
        let found = fields.entry(field).or_insert_with(|| expected.into());
        if found.as_str() != Some(expected) {
            let found = found.as_str().unwrap_or_default().to_owned();
            let expected = format!("{expected}, as the list says");
            return Err((field.into(), Problem::Value { found, expected }));
        }
    }
    Ok(())
}
