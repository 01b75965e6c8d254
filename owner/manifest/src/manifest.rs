//! A whole file: its documents, its pods, its images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ah_pod::ImageFacts;
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem};
use crate::kinds::{self, Object};
use crate::template::PodTemplate;
use crate::yaml::{self, Node};

/// A manifest that was read whole: every field known, every pod understood.
#[derive(Debug, Clone)]
pub struct Manifest {
    text: String,
    file: Option<String>,
    pub(crate) documents: Vec<Node>,
    pods: Vec<PodTemplate>,
}

/// ConfigMaps and Secrets of the file, by namespace and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<(Option<String>, String), BTreeMap<String, String>>,
    pub(crate) secrets: BTreeMap<(Option<String>, String), BTreeMap<String, Option<String>>>,
}

/// Reads a manifest.
///
/// # Errors
/// The first thing that is wrong, with document, line and path.
pub fn read(text: &str) -> Result<Manifest, ManifestError> {
    let documents = yaml::parse(text)?;
    let mut sources = Sources::default();
    let mut workloads = Vec::new();
    for (number, node) in (1..).zip(&documents) {
        let value = node.to_json();
        let object = kinds::require_mapping(&value)
            .and_then(|()| kinds::object(&value))
            .map_err(|error| locate(error, number, node))?;
        match object {
            Object::Workload(workload) => workloads.push((number, node, value, workload)),
            Object::ConfigMap(map) => {
                let key = (map.metadata.namespace.clone(), name(map.metadata.name.as_deref()));
                sources.config_maps.insert(key, kinds::config_map_values(&map));
            }
            Object::Secret(secret) => {
                let key =
                    (secret.metadata.namespace.clone(), name(secret.metadata.name.as_deref()));
                sources.secrets.insert(key, kinds::secret_values(&secret));
            }
            Object::Other => {}
        }
    }
    let mut pods = Vec::new();
    for (number, node, value, workload) in workloads {
        let pod = PodTemplate::new(number, &value, *workload, &sources)
            .map_err(|error| locate(error, number, node))?;
        pods.push(pod);
    }
    Ok(Manifest { text: text.into(), file: None, documents, pods })
}

/// Reads a manifest of which errors shall name the file.
///
/// # Errors
/// As [`read`].
pub fn read_file(file: &Path, text: &str) -> Result<Manifest, ManifestError> {
    let name = file.display().to_string();
    match read(text) {
        Ok(manifest) => Ok(Manifest { file: Some(name), ..manifest }),
        Err(error) => Err(error.in_file(&name)),
    }
}

impl Manifest {
    /// The text as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The pods, in the order of the file.
    pub fn pods(&self) -> &[PodTemplate] {
        &self.pods
    }

    /// Every image of every pod, as written.
    pub fn images(&self) -> BTreeSet<String> {
        self.pods.iter().flat_map(PodTemplate::images).map(str::to_owned).collect()
    }

    /// The only pod of the file, joined with the facts of its images (by name as written).
    ///
    /// # Errors
    /// When there is not exactly one, and as [`PodTemplate::to_pod`].
    pub fn pod(&self, images: &BTreeMap<String, ImageFacts>) -> Result<ah_pod::Pod, ManifestError> {
        match self.pods.as_slice() {
            [pod] => self.to_pod(pod, images),
            pods => {
                let problem = Problem::PodCount { found: pods.len(), expected: "one" };
                Err(self.in_file(ManifestError::new(Place::default(), problem)))
            }
        }
    }

    /// One of this file's pods, joined with the facts of its images.
    ///
    /// # Errors
    /// As [`PodTemplate::to_pod`], with line and file.
    pub fn to_pod(
        &self,
        pod: &PodTemplate,
        images: &BTreeMap<String, ImageFacts>,
    ) -> Result<ah_pod::Pod, ManifestError> {
        pod.to_pod(images).map_err(|error| {
            let number = pod.document();
            match number.checked_sub(1).and_then(|index| self.documents.get(index)) {
                Some(node) => self.in_file(locate(error, number, node)),
                None => self.in_file(error),
            }
        })
    }

    fn in_file(&self, error: ManifestError) -> ManifestError {
        match &self.file {
            Some(file) => error.in_file(file),
            None => error,
        }
    }

    /// The documents without their places.
    pub(crate) fn values(&self) -> Vec<Value> {
        self.documents.iter().map(Node::to_json).collect()
    }
}

fn name(name: Option<&str>) -> String {
    name.unwrap_or_default().into()
}

/// Adds the document and the line to an error that has a path.
fn locate(mut error: ManifestError, document: usize, node: &Node) -> ManifestError {
    error.place.document = document;
    error.place.line = error.place.line.or(Some(node.line_of(&error.place.path)));
    error
}
