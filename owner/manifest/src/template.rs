//! One pod of a manifest: read whole at once, joined with its images' facts later.

use std::collections::BTreeMap;

use ah_pod::{Accounts, ImageFacts, Pod, PodName, Text};
use k8s_openapi::api::core::v1::{self as api, PodSpec};

pub(crate) use crate::checks::{bytes, fail, missing, require, value};
use crate::error::{ManifestError, Problem};
use crate::manifest::Sources;
use crate::options::Platform;
use crate::services::{Links, Wanted, links};
use crate::strict::{below, join, strict};
use crate::workload::Workload;
use crate::{annotations, checks, containers, fields, settings, token, volumes};

/// A pod that a manifest declares, without what only its images know.
#[derive(Debug, Clone)]
pub struct PodTemplate {
    document: usize,
    place: Places,
    kind: String,
    object_name: String,
    namespace: Option<String>,
    annotations: BTreeMap<String, String>,
    runtime_class: Option<String>,
    pull_secrets: Vec<String>,
    incomplete: Option<String>,
    runs_on: Option<Platform>,
    architecture: Option<String>,
    /// The pod with empty image facts.
    draft: Pod,
    /// Image as written and path of the field, for each container of the draft.
    images: Vec<(String, String)>,
    /// How many of the last containers a controller adds: no field of the document is theirs.
    added_containers: usize,
}

/// Paths in the document.
#[derive(Debug, Clone)]
struct Places {
    spec: String,
    annotations: Option<String>,
}

/// What containers need to know of their pod.
pub(crate) struct PodContext<'a> {
    pub(crate) spec: &'a PodSpec,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Labels and annotations that the pod's controller adds.
    pub(crate) added: BTreeMap<String, Text>,
    pub(crate) sources: &'a Sources,
    pub(crate) choices: annotations::Choices,
    /// Path of the annotations.
    pub(crate) annotations_path: &'a str,
    pub(crate) platform: Platform,
    /// Variables of services.
    pub(crate) links: Links,
    /// The object is the pod and says its name: nobody adds labels to it.
    pub(crate) is_bare_pod: bool,
}

impl PodTemplate {
    /// The pod of an object at `object_path` of a document.
    pub(crate) fn new(
        document: usize,
        object_path: &str,
        workload: Workload,
        sources: &Sources,
        platform: Platform,
    ) -> Result<Self, ManifestError> {
        let place = Places {
            spec: join(object_path, &workload.spec_path),
            annotations: workload.annotations_path.as_ref().map(|path| join(object_path, path)),
        };
        let result = Self::read(document, &place, &workload, sources, platform);
        // what the controller or a default added has its place elsewhere in the object
        result.map_err(|mut error| {
            if let Some(rest) = error.place.path.strip_prefix(&place.spec) {
                let origin = workload.origin(rest.strip_prefix('.').unwrap_or(rest));
                error.place.path = join(object_path, &origin);
            } else if error.place.path.starts_with("metadata.") {
                error.place.path = join(object_path, &error.place.path);
            }
            error
        })
    }

    fn read(
        document: usize,
        place: &Places,
        workload: &Workload,
        sources: &Sources,
        platform: Platform,
    ) -> Result<Self, ManifestError> {
        let path = place.spec.as_str();
        let spec: PodSpec = strict(&workload.spec).map_err(below(path))?;
        fields::check_spec(&workload.spec, path)?;
        let names: Vec<&str> = all_containers(&spec).map(|(_, c)| c.name.as_str()).collect();
        let annotations_path = place.annotations.as_deref().unwrap_or_default();
        let choices = annotations::choices(&workload.annotations, &names, annotations_path)?;
        let runs_on = choices.runs_on;
        let platform = runs_on.unwrap_or(platform);
        let wanted = Wanted {
            enabled: spec.enable_service_links,
            names: &choices.services,
            annotations_path,
            namespace: &workload.namespace,
            platform,
        };
        let links = links(&wanted, sources)?;
        let context = PodContext {
            spec: &spec,
            name: workload.pod_name.text(),
            namespace: workload.namespace.clone(),
            labels: workload.labels.clone(),
            annotations: workload.annotations.clone(),
            added: workload.added.clone(),
            sources,
            choices,
            annotations_path,
            platform,
            links,
            is_bare_pod: workload.kind == "Pod" && matches!(workload.pod_name, PodName::Fixed(_)),
        };
        checks::check_names(&context, path)?;
        let draft = draft(workload, &context, path)?;
        let pull_secrets = spec.image_pull_secrets.iter().flatten();
        Ok(Self {
            document,
            place: place.clone(),
            kind: workload.kind.clone(),
            object_name: workload.object_name.clone(),
            namespace: workload.namespace.clone(),
            annotations: workload.annotations.clone(),
            pull_secrets: pull_secrets.map(|secret| secret.name.clone()).collect(),
            incomplete: workload.incomplete.clone(),
            runs_on,
            architecture: architecture(&spec),
            runtime_class: spec.runtime_class_name.clone(),
            draft,
            images: images(&spec, path)?,
            added_containers: workload.added_containers,
        })
    }

    /// Number of its YAML document, from 1, empty documents not counted.
    pub fn document(&self) -> usize {
        self.document
    }

    /// Kind of the object that declares it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Name of the object that declares it.
    pub fn object_name(&self) -> &str {
        &self.object_name
    }

    /// Namespace of the object, where the manifest says it.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Path of the PodSpec in its document, as `items[0].spec.template.spec`.
    pub fn path(&self) -> &str {
        &self.place.spec
    }

    /// Names of the Secrets for fetching images: the pod's own, or else its ServiceAccount's.
    pub fn image_pull_secrets(&self) -> &[String] {
        &self.pull_secrets
    }

    /// What its controller adds that nobody can know, where reading such a pod was asked for.
    pub fn incomplete(&self) -> Option<&str> {
        self.incomplete.as_deref()
    }

    /// What it runs on, where its annotation says it.
    pub fn runs_on(&self) -> Option<Platform> {
        self.runs_on
    }

    /// The machines that it may only be placed on, as `arm64`, where its `nodeSelector` says it.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// Its annotations, as written.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// `spec.runtimeClassName`.
    pub fn runtime_class(&self) -> Option<&str> {
        self.runtime_class.as_deref()
    }

    /// Its images as written, container by container.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|(image, _)| image.as_str())
    }

    /// The pod with the facts of its images, by name as written.
    ///
    /// # Errors
    /// When an image is missing, or its facts and the manifest together do not make a process.
    pub fn to_pod(&self, images: &BTreeMap<String, ImageFacts>) -> Result<Pod, ManifestError> {
        let mut pod = self.draft.clone();
        for (container, (image, path)) in pod.containers.iter_mut().zip(&self.images) {
            let facts = images
                .get(image)
                .ok_or_else(|| fail(path, Problem::NoImage { image: image.clone() }))?;
            // the pod's own stop signal comes before the image's
            let stop_signal = container.image.stop_signal.take();
            container.image = facts.clone();
            container.image.stop_signal = stop_signal.or(container.image.stop_signal.take());
        }
        ah_pod::requests::check(&pod)
            .map_err(|error| fail(&self.path_of(&error), Problem::Request(error)))?;
        Ok(pod)
    }

    pub(crate) fn annotations_path(&self) -> Option<&str> {
        self.place.annotations.as_deref()
    }

    pub(crate) fn image_paths(&self) -> impl Iterator<Item = String> {
        let own = self.images.len().saturating_sub(self.added_containers);
        self.images.iter().take(own).map(|(_, path)| path.clone())
    }

    /// The container's path where the error is about one.
    fn path_of(&self, error: &ah_pod::RequestError) -> String {
        let spec_path = self.place.spec.as_str();
        use ah_pod::RequestError as E;
        let name = match error {
            E::NoCommand { container }
            | E::UnknownCapability { container, .. }
            | E::UnknownVolume { container, .. }
            | E::UnknownSubPath { container, .. }
            | E::FileNameTaken { container, .. }
            | E::User { container, .. } => container,
            _ => return spec_path.into(),
        };
        let index = self.draft.container(name).map(|(index, _)| index);
        let image = index.and_then(|index| self.images.get(index));
        image.and_then(|(_, path)| path.strip_suffix(".image")).unwrap_or(spec_path).into()
    }
}

/// By the well-known label (Kubernetes API, `kubernetes.io/arch`).
fn architecture(spec: &PodSpec) -> Option<String> {
    spec.node_selector.as_ref()?.get("kubernetes.io/arch").cloned()
}

/// Init containers, then the others, each with its path below the spec.
pub(crate) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = (String, &api::Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("initContainers[{index}]"), container));
    let main = spec.containers.iter().enumerate();
    init.chain(main.map(|(index, container)| (format!("containers[{index}]"), container)))
}

/// Image and path of its field, container by container.
fn images(spec: &PodSpec, spec_path: &str) -> Result<Vec<(String, String)>, ManifestError> {
    let images = all_containers(spec).map(|(path, container)| {
        let path = format!("{spec_path}.{path}.image");
        let image = container.image.clone().filter(|image| !image.is_empty());
        let image = image.ok_or_else(|| missing(&path, "an image"))?;
        Ok((image, path))
    });
    images.collect()
}

fn draft(workload: &Workload, context: &PodContext<'_>, path: &str) -> Result<Pod, ManifestError> {
    let spec = context.spec;
    let count_init = spec.init_containers.iter().flatten().count();
    let mut drafts = Vec::new();
    for (index, (container_path, container)) in all_containers(spec).enumerate() {
        let path = format!("{path}.{container_path}");
        drafts.push(containers::container(context, container, index < count_init, &path)?);
    }
    let mut pod = Pod {
        name: workload.pod_name.clone(),
        namespace: workload.namespace.clone(),
        hostname: spec.hostname.clone().filter(|name| !name.is_empty()),
        subdomain: spec.subdomain.clone().filter(|name| !name.is_empty()),
        host_aliases: settings::host_aliases(spec, path)?,
        dns: settings::dns(spec, path)?,
        security: settings::security(spec, path)?,
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        volumes: volumes::volumes(context, path)?,
        services: context.links.services.clone(),
        containers: drafts,
        restart_policy: settings::restart_policy(workload, spec, path)?,
        termination_grace_seconds: settings::grace(spec, path)?,
        logs: context.choices.logs,
        whole: context.choices.whole,
        owner_keys: context.choices.owner_keys.clone(),
    };
    token::add(context, &mut pod);
    Ok(pod)
}

/// What stands for an image until it is resolved.
pub(crate) fn no_image() -> ImageFacts {
    ImageFacts {
        reference: String::new(),
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: Vec::new(),
    }
}
