//! The owner's text with tags pinned and annotations added, everything else as it was.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{ManifestError, Place, Problem};
use crate::kinds::join;
use crate::manifest::Manifest;
use crate::template::PodTemplate;
use crate::yaml::{self, Node, NodeKind, Style};

/// What to change in a manifest's text.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// Image as written to image as it shall be written.
    pub images: BTreeMap<String, String>,
    /// For each pod, by its place in [`Manifest::pods`]: annotations to set.
    pub annotations: BTreeMap<usize, BTreeMap<String, String>>,
}

/// Bytes to put in the place of others.
#[derive(Debug)]
struct Change {
    start: usize,
    end: usize,
    text: String,
}

impl Manifest {
    /// The only pod's text edit: its images pinned (as written to as pinned) and one annotation set.
    ///
    /// # Errors
    /// As [`Self::edited`].
    pub fn with_annotation_and_digests(
        &self,
        key: &str,
        value: &str,
        images: &BTreeMap<String, String>,
    ) -> Result<String, ManifestError> {
        let annotation = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let annotations = (0..self.pods().len()).map(|index| (index, annotation.clone())).collect();
        self.edited(&Edits { images: images.clone(), annotations })
    }

    /// The text with `edits` made; comments, order and layout of the rest are kept.
    ///
    /// The result is read again and compared: it means the same objects, the edits apart.
    ///
    /// # Errors
    /// [`Problem::Edit`] when the layout does not let the change be made so.
    pub fn edited(&self, edits: &Edits) -> Result<String, ManifestError> {
        let mut changes = Vec::new();
        let mut expected = self.values();
        for (index, pod) in self.pods().iter().enumerate() {
            let number = pod.document();
            let at = number.wrapping_sub(1);
            let (Some(node), Some(value)) = (self.documents.get(at), expected.get_mut(at)) else {
                return Err(failed(number));
            };
            let empty = BTreeMap::new();
            let annotations = edits.annotations.get(&index).unwrap_or(&empty);
            change_images(pod, node, &edits.images, &mut changes);
            change_annotations(self.text(), pod, node, annotations, &mut changes)
                .ok_or_else(|| failed(number))?;
            expect(pod, value, &edits.images, annotations).ok_or_else(|| failed(number))?;
        }
        let edited = apply(self.text(), changes).ok_or_else(|| failed(0))?;
        let found: Vec<Value> = yaml::parse(&edited)?.iter().map(Node::to_json).collect();
        match found == expected {
            true => Ok(edited),
            false => Err(failed(0)),
        }
    }
}

fn failed(document: usize) -> ManifestError {
    ManifestError::new(Place { document, ..Place::default() }, Problem::Edit)
}

/// Makes the same changes to the values, for the comparison.
fn expect(
    pod: &PodTemplate,
    document: &mut Value,
    images: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<()> {
    for path in pod.image_paths() {
        let image = document.pointer_mut(&pointer(&path))?;
        if let Some(pinned) = image.as_str().and_then(|image| images.get(image)) {
            *image = Value::String(pinned.clone());
        }
    }
    if annotations.is_empty() {
        return Some(());
    }
    let mut at = document;
    for step in join(pod.template_path(), "metadata.annotations").split('.') {
        let map = at.as_object_mut()?;
        at = map.entry(step).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    let map = at.as_object_mut()?;
    for (key, value) in annotations {
        map.insert(key.clone(), Value::String(value.clone()));
    }
    Some(())
}

/// `a.b[0]` as a JSON pointer; the paths of images have no dots in their keys.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('[', "/").replace(']', "").replace('.', "/"))
}

fn change_images(
    pod: &PodTemplate,
    document: &Node,
    images: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
) {
    for path in pod.image_paths() {
        let node = document.nearest(&path);
        let Some(pinned) = node.text().and_then(|image| images.get(image)) else { continue };
        // a name with a digest is a plain scalar: no blank, no indicator at its start, no `: `
        let text = match node.kind {
            NodeKind::Scalar { style: Style::Plain, .. } => pinned.clone(),
            _ => quoted(pinned),
        };
        changes.push(Change { start: node.range.start, end: node.range.end, text });
    }
}

fn change_annotations(
    text: &str,
    pod: &PodTemplate,
    document: &Node,
    annotations: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
) -> Option<()> {
    if annotations.is_empty() {
        return Some(());
    }
    let template = match pod.template_path() {
        "" => document,
        path => document.nearest(path),
    };
    let Some((metadata_key, metadata)) = template.entry("metadata") else {
        let lines = nested("annotations", annotations);
        return insert(text, None, template, "metadata", &lines, changes);
    };
    let Some((key, present)) = metadata.entry("annotations") else {
        return insert(
            text,
            Some(metadata_key),
            metadata,
            "annotations",
            &flat(annotations),
            changes,
        );
    };
    let mut new = BTreeMap::new();
    for (name, value) in annotations {
        match present.get(name) {
            Some(node) => changes.push(Change {
                start: node.range.start,
                end: node.range.end,
                text: quoted(value),
            }),
            None => {
                new.insert(name.clone(), value.clone());
            }
        }
    }
    insert_entries(text, key, present, &flat(&new), changes)
}

/// Lines of a block mapping, each with its depth below the place where they are put.
type Lines = Vec<(usize, String)>;

fn flat(annotations: &BTreeMap<String, String>) -> Lines {
    annotations.iter().map(|(key, value)| (0, format!("{key}: {}", quoted(value)))).collect()
}

fn nested(key: &str, annotations: &BTreeMap<String, String>) -> Lines {
    let inner = flat(annotations).into_iter().map(|(depth, line)| (depth + 1, line));
    std::iter::once((0, format!("{key}:"))).chain(inner).collect()
}

/// Puts `key:` with `lines` below it into the mapping `parent`.
fn insert(
    text: &str,
    parent_key: Option<&Node>,
    parent: &Node,
    key: &str,
    lines: &Lines,
    changes: &mut Vec<Change>,
) -> Option<()> {
    let inner = lines.iter().map(|(depth, line)| (depth + 1, line.clone()));
    let lines: Lines = std::iter::once((0, format!("{key}:"))).chain(inner).collect();
    match (parent_key, &parent.kind) {
        (Some(parent_key), _) => insert_entries(text, parent_key, parent, &lines, changes),
        (None, NodeKind::Mapping { entries, flow: false }) if !entries.is_empty() => {
            insert_before_first(entries, &lines, changes)
        }
        _ => None,
    }
}

/// Puts `lines` into the mapping `value` of `key`.
fn insert_entries(
    text: &str,
    key: &Node,
    value: &Node,
    lines: &Lines,
    changes: &mut Vec<Change>,
) -> Option<()> {
    if lines.is_empty() {
        return Some(());
    }
    match &value.kind {
        NodeKind::Mapping { entries, flow: false } => insert_before_first(entries, lines, changes),
        NodeKind::Mapping { entries, flow: true } => {
            let comma = if entries.is_empty() { "" } else { ", " };
            let start = value.range.start.checked_add(1)?;
            changes.push(Change { start, end: start, text: flow(lines)? + comma });
            Some(())
        }
        // `key:` with nothing, or with a null written out
        NodeKind::Scalar { value: Value::Null, .. } if value.range.is_empty() => {
            let end =
                text.get(key.range.end..)?.find('\n').map_or(text.len(), |at| key.range.end + at);
            let mut added = String::new();
            for (depth, line) in lines {
                added += &format!("\n{}{line}", " ".repeat(key.column + 2 + 2 * depth));
            }
            changes.push(Change { start: end, end, text: added });
            Some(())
        }
        NodeKind::Scalar { value: Value::Null, .. } => {
            let text = format!("{{{}}}", flow(lines)?);
            changes.push(Change { start: value.range.start, end: value.range.end, text });
            Some(())
        }
        _ => None,
    }
}

fn insert_before_first(
    entries: &[(Node, Node)],
    lines: &Lines,
    changes: &mut Vec<Change>,
) -> Option<()> {
    let (first, _) = entries.first()?;
    let mut text = String::new();
    for (index, (depth, line)) in lines.iter().enumerate() {
        let indent = if index == 0 { 0 } else { first.column + 2 * depth };
        text += &format!("{}{line}\n", " ".repeat(indent));
    }
    text += &" ".repeat(first.column);
    changes.push(Change { start: first.range.start, end: first.range.start, text });
    Some(())
}

/// The lines as entries of a flow mapping.
fn flow(lines: &Lines) -> Option<String> {
    let mut text = String::new();
    let mut open = 0;
    let mut just_opened = true;
    for (index, (depth, line)) in lines.iter().enumerate() {
        if *depth != open {
            return None;
        }
        if !just_opened {
            text += ", ";
        }
        text += line;
        just_opened = lines.get(index + 1).is_some_and(|(next, _)| next > depth);
        if just_opened {
            text += " {";
            open += 1;
        }
    }
    Some(text + &"}".repeat(open))
}

/// A JSON text is a YAML double-quoted scalar.
fn quoted(value: &str) -> String {
    Value::String(value.into()).to_string()
}

/// Makes the changes; one made twice (an alias) is made once.
fn apply(text: &str, mut changes: Vec<Change>) -> Option<String> {
    changes.sort_by_key(|change| (change.start, change.end));
    changes.dedup_by(|a, b| (a.start, a.end, &a.text) == (b.start, b.end, &b.text));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for change in changes {
        out += text.get(done..change.start)?;
        out += &change.text;
        done = change.end;
    }
    out += text.get(done..)?;
    Some(out)
}
