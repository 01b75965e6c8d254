//! The owner's text with tags pinned and annotations added, everything else as it was.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{ManifestError, Place, Problem};
use crate::manifest::Manifest;
use crate::template::PodTemplate;
use crate::yaml::{self, Node, NodeKind, Step, Style, steps};

mod place;

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
        self.edit(edits).map_err(|error| self.in_file(error))
    }

    fn edit(&self, edits: &Edits) -> Result<String, ManifestError> {
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
    for step in steps(pod.annotations_path()?) {
        at = match step {
            Step::Key(key) => at.as_object_mut()?.entry(key).or_insert(Value::Null),
            Step::Index(index) => at.get_mut(index)?,
        };
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
    let (key, node, lacking) = document.descend(pod.annotations_path()?)?;
    if !lacking.is_empty() {
        return place::insert(text, key, node, &place::nested(&lacking, annotations), changes);
    }
    let mut new = BTreeMap::new();
    for (name, value) in annotations {
        match node.get(name) {
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
    place::insert(text, key, node, &place::nested(&[], &new), changes)
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
