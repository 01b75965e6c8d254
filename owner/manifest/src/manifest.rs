//! A whole file, or several that are read together: documents, pods, images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ah_pod::ImageFacts;
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem};
use crate::kinds::{self, Object};
use crate::objects::{Located, locate, objects};
use crate::options::ReadOptions;
use crate::source::NamedText;
pub(crate) use crate::sources::Sources;
use crate::strict::below;
use crate::template::PodTemplate;
use crate::workload::Workload;
use crate::yaml::{self, Node};

/// A manifest that was read whole: every field known, every pod understood.
#[derive(Debug, Clone)]
pub struct Manifest {
    text: String,
    file: Option<String>,
    pub(crate) documents: Vec<Node>,
    pods: Vec<PodTemplate>,
}

/// Manifests that were read together: what one declares serves the pods of the others.
#[derive(Debug, Clone)]
pub struct ManifestSet {
    files: Vec<Manifest>,
}

/// Reads a manifest with the shipped rules.
///
/// # Errors
/// The first thing that is wrong, with document, line and path.
pub fn read(text: &str) -> Result<Manifest, ManifestError> {
    one(None, text)
}

/// Reads a manifest of which errors shall name the file.
///
/// # Errors
/// As [`read`].
pub fn read_file(file: &Path, text: &str) -> Result<Manifest, ManifestError> {
    one(Some(file.display().to_string()), text)
}

/// Reads texts together, in the order of their names whatever order they come in.
///
/// # Errors
/// As [`read`], with the file's name.
pub fn read_set(
    mut texts: Vec<NamedText>,
    options: &ReadOptions,
) -> Result<ManifestSet, ManifestError> {
    texts.sort();
    let files = texts.into_iter().map(|text| parse(Some(text.name), text.text));
    let mut files = files.collect::<Result<Vec<_>, _>>()?;
    fill(&mut files, options)?;
    Ok(ManifestSet { files })
}

/// Reads one text, as [`read_set`] reads several.
///
/// # Errors
/// As [`read_set`].
pub fn read_one(text: NamedText, options: &ReadOptions) -> Result<Manifest, ManifestError> {
    let mut files = [parse(Some(text.name), text.text)?];
    fill(&mut files, options)?;
    let [manifest] = files;
    Ok(manifest)
}

fn one(file: Option<String>, text: &str) -> Result<Manifest, ManifestError> {
    let mut files = [parse(file, text.into())?];
    fill(&mut files, &ReadOptions::default())?;
    let [manifest] = files;
    Ok(manifest)
}

pub(crate) fn parse(file: Option<String>, text: String) -> Result<Manifest, ManifestError> {
    match yaml::parse(&text) {
        Ok(documents) => Ok(Manifest { text, file, documents, pods: Vec::new() }),
        Err(error) => Err(match file {
            Some(file) => error.in_file(&file),
            None => error,
        }),
    }
}

/// First what pods take values from, of all files, then the pods.
fn fill(files: &mut [Manifest], options: &ReadOptions) -> Result<(), ManifestError> {
    let mut sources = Sources::default();
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for object in objects(&file.documents).map_err(|error| file.in_file(error))? {
            let workloads = sort(&object, options, &mut sources)
                .map_err(|error| file.located(error, object.document))?;
            let place = |workload| (index, object.document, object.path.clone(), workload);
            found.extend(workloads.into_iter().map(place));
        }
    }
    for (index, document, path, mut workload) in found {
        let Some(file) = files.get_mut(index) else { continue };
        sources.complete(&mut workload);
        let pod = PodTemplate::new(document, &path, workload, &sources, options.platform)
            .map_err(|error| file.located(error, document))?;
        file.pods.push(pod);
    }
    Ok(())
}

/// The pods of an object; what serves others goes to `sources`.
fn sort(
    object: &Located,
    options: &ReadOptions,
    sources: &mut Sources,
) -> Result<Vec<Workload>, ManifestError> {
    let read = match kinds::object(&object.value, options) {
        Ok(Object::Workloads(workloads)) => return Ok(workloads),
        Ok(Object::ConfigMap(map)) => sources.add_config_map(&map),
        Ok(Object::Secret(secret)) => sources.add_secret(&secret),
        Ok(Object::LimitRange(range)) => sources.add_limit_range(&range),
        Ok(Object::ServiceAccount(account)) => sources.add_service_account(&account),
        Ok(Object::Other) => {
            sources.add_other(&object.value);
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    read.map(|()| Vec::new()).map_err(below(&object.path))
}

impl ManifestSet {
    /// The files, in the order of their names.
    pub fn files(&self) -> &[Manifest] {
        &self.files
    }

    /// The files themselves, in the order of their names.
    pub fn into_files(self) -> Vec<Manifest> {
        self.files
    }

    /// Every pod with its file, in the order of the files.
    pub fn pods(&self) -> impl Iterator<Item = (&Manifest, &PodTemplate)> {
        self.files.iter().flat_map(|file| file.pods.iter().map(move |pod| (file, pod)))
    }

    /// Every image of every pod, as written.
    pub fn images(&self) -> BTreeSet<String> {
        self.files.iter().flat_map(Manifest::images).collect()
    }
}

impl Manifest {
    /// The text as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file's name, where one is known.
    pub fn name(&self) -> Option<&str> {
        self.file.as_deref()
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
        pod.to_pod(images).map_err(|error| self.located(error, pod.document()))
    }

    /// An error with its place in this file.
    pub(crate) fn located(&self, error: ManifestError, document: usize) -> ManifestError {
        let node = document.checked_sub(1).and_then(|index| self.documents.get(index));
        self.in_file(match node {
            Some(node) => locate(error, document, node),
            None => error,
        })
    }

    pub(crate) fn in_file(&self, error: ManifestError) -> ManifestError {
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
