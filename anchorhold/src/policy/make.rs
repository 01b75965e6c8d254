//! Policies for every pod of every file: images resolved once, pods generated side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ah_manifest::{Edits, Platform, PodTemplate, RUNS_ON_ANNOTATION};
use ah_pod::{Pod, RUNTIME_HINTS_ANNOTATION, RuntimeHints};
use ah_policy::{
    AKS_ANNOTATION, AksPolicy, INITDATA_ANNOTATION, KeyService, PolicyDocument, ServicePublicKey,
};
use ah_policygen::{Agent, Options};
use anyhow::{Context, Result};

use crate::cli::policy::Form;
use crate::dirs::Dirs;
use crate::inputs::{Input, pod_name};
use crate::prepare::{self, KEY_SERVICE};
use crate::resolve::Resolved;
use crate::ui::failure;

/// Most bytes of all annotations of an object together (Kubernetes API, `TotalAnnotationSizeLimitB`).
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// The policy of one pod.
pub(crate) struct Made {
    /// Which input, and which of its pods.
    pub(crate) input: usize,
    pub(crate) index: usize,
    /// Kind and name of the object that declares it.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// The document, and the annotation that carries it.
    pub(crate) document: PolicyDocument,
    pub(crate) annotation: String,
    /// Image as written and with its digest.
    pub(crate) images: BTreeMap<String, String>,
    /// Variables that come from Secrets, as `container: NAME`.
    pub(crate) secrets: Vec<String>,
    /// Annotations that say what the options decided, so that the policy follows from the YAML alone.
    pub(crate) said: BTreeMap<String, String>,
    /// What the pod's controller adds that the policy denies.
    pub(crate) incomplete: Option<String>,
}

/// What the owner decides beside the pods.
#[derive(Clone)]
pub(crate) struct Choices {
    /// What the pods run on, where an option says it.
    pub(crate) runs_on: Option<Platform>,
    pub(crate) form: Form,
    pub(crate) agent: Agent,
    pub(crate) key_service: Option<KeyService>,
}

/// Which pods get a policy.
pub(crate) type Wanted<'a> = &'a (dyn Fn(&PodTemplate) -> bool + Sync);

/// Every image of every wanted pod.
pub(crate) fn image_names(inputs: &[Input], wanted: Wanted<'_>) -> BTreeSet<String> {
    let pods = inputs.iter().flat_map(|input| input.manifest.pods());
    pods.filter(|pod| wanted(pod)).flat_map(PodTemplate::images).map(str::to_owned).collect()
}

/// `local`, `none` or a public key.
pub(crate) async fn key_service(
    dirs: &Dirs,
    said: &str,
    form: Form,
    agent: Agent,
) -> Result<Option<KeyService>> {
    match (said, form) {
        ("local", _) if agent == Agent::Kata => Ok(None),
        (key, _) if agent == Agent::Kata && key != "none" => Err(failure(
            "a stock Kata guest does not know a key service by the policy's document",
            "leave --key-service out with --for kata",
        )),
        // The older form is the policy text alone: it has no place for a key service.
        ("local" | "none", Form::Aks) | ("none", _) => Ok(None),
        (_, Form::Aks) => Err(failure(
            "the AKS form has no place for a key service",
            "--form initdata carries it",
        )),
        ("local", Form::Initdata) => prepare::key_service(dirs).await.map(Some),
        (key, Form::Initdata) => public_key(key).map(Some),
    }
}

/// A key service at the usual address with this public key.
pub(crate) fn public_key(text: &str) -> Result<KeyService> {
    let public_key: ServicePublicKey = text.parse().map_err(|error| {
        failure(format!("--key-service: {error}"), "say local, none, or the service's public key")
    })?;
    Ok(KeyService { address: KEY_SERVICE, public_key })
}

/// A pod that may only be placed on machines of another kind than its images are made for would never start.
pub(crate) fn check_platform(
    inputs: &[Input],
    wanted: Wanted<'_>,
    platforms: &[ah_registry::Platform],
) -> Result<()> {
    let pods = inputs.iter().flat_map(|input| input.manifest.pods()).filter(|pod| wanted(pod));
    for pod in pods {
        let is_one = |arch: &&str| {
            platforms.iter().any(|platform| platform.name().strip_prefix("linux/") == Some(arch))
        };
        let said = pod.architecture().filter(|arch| !is_one(arch));
        if let Some(arch) = said {
            return Err(failure(
                format!(
                    "{}: nodeSelector says {arch}, the images are those of {}",
                    pod_name(pod),
                    words(platforms)
                ),
                format!(
                    "--platform linux/{arch} takes the images of these machines; generate other pods in a run of their own"
                ),
            ));
        }
    }
    Ok(())
}

fn words(platforms: &[ah_registry::Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes the policies, in the order of the inputs; `images` are those of each platform.
pub(crate) fn make(
    inputs: &[Input],
    wanted: Wanted<'_>,
    images: &[(ah_registry::Platform, Resolved)],
    choices: &Choices,
) -> Result<Vec<Made>> {
    let Some(((_, first), others)) = images.split_first() else { return Ok(Vec::new()) };
    let places: Vec<(usize, usize)> = inputs
        .iter()
        .enumerate()
        .flat_map(|(input, file)| {
            let pods = file.manifest.pods().iter().enumerate();
            pods.filter(|(_, pod)| wanted(pod)).map(move |(index, _)| (input, index))
        })
        .collect();
    let one = |&(input, index): &(usize, usize)| {
        let file = &inputs[input];
        let pod = &file.manifest.pods()[index];
        let made = make_one(file, pod, first, others, choices)
            .with_context(|| format!("{}: {}", file.path.display(), pod_name(pod)))?;
        let images = pod.images().filter_map(|image| first.pinned.get_key_value(image));
        let images = images.map(|(name, pinned)| (name.clone(), pinned.clone())).collect();
        Ok(Made { input, index, images, ..made })
    };
    side_by_side(&places, one).into_iter().collect()
}

/// Runs the work for each item on all cores; results stand as the items do.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, R>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.insert(index, result);
                    }
                }
            });
        }
    });
    done.into_inner().map(|done| done.into_values().collect()).unwrap_or_default()
}

fn make_one(
    file: &Input,
    template: &PodTemplate,
    first: &Resolved,
    others: &[(ah_registry::Platform, Resolved)],
    choices: &Choices,
) -> Result<Made> {
    check_annotations(template, choices.form)?;
    let pod = |facts| file.manifest.to_pod(template, facts).map_err(crate::manifest_error);
    let others = others.iter();
    let others: Vec<(String, Pod)> = others
        .map(|(platform, images)| Ok((platform.to_string(), pod(&images.facts)?)))
        .collect::<Result<_>>()?;
    let pod = pod(&first.facts)?;
    check_release_socket(&pod, choices)?;
    let options = Options { key_service: choices.key_service.clone(), agent: choices.agent };
    let generated = ah_policygen::generate_for_platforms(&pod, &others, &options)?;
    let (document, annotation) = match choices.form {
        Form::Initdata => {
            let annotation = generated.initdata.to_annotation();
            (PolicyDocument::InitData(generated.initdata), annotation)
        }
        Form::Aks => {
            let policy = AksPolicy::new(&generated.policy)?;
            let annotation = policy.to_annotation();
            (PolicyDocument::Aks(policy), annotation)
        }
    };
    if annotation.len() > MAX_ANNOTATIONS_BYTES {
        return Err(failure(
            format!(
                "the annotation has {} bytes, Kubernetes takes {MAX_ANNOTATIONS_BYTES} in all",
                annotation.len()
            ),
            "--form initdata is packed; fewer containers or shorter environments help too",
        ));
    }
    Ok(Made {
        input: 0,
        index: 0,
        kind: template.kind().to_owned(),
        name: template.object_name().to_owned(),
        document,
        annotation,
        images: BTreeMap::new(),
        secrets: secrets(&pod),
        said: runs_on(template, choices)?.into_iter().chain(hints(template, &pod)?).collect(),
        incomplete: template.incomplete().map(str::to_owned),
    })
}

/// A cluster is what is meant where nothing is said; another choice goes into the YAML, and stays there.
fn runs_on(template: &PodTemplate, choices: &Choices) -> Result<BTreeMap<String, String>> {
    match (template.runs_on(), choices.runs_on) {
        (Some(own), Some(said)) if own != said => Err(failure(
            format!(
                "annotation {RUNS_ON_ANNOTATION} says {}, --runs-on {}",
                own.word(),
                said.word()
            ),
            "change the annotation, or leave the option out",
        )),
        (None, Some(said @ Platform::OneMachine)) => {
            Ok(BTreeMap::from([(RUNS_ON_ANNOTATION.to_owned(), said.word().to_owned())]))
        }
        _ => Ok(BTreeMap::new()),
    }
}

/// What containerd's spec has no place for. One from an earlier time that is not needed any more is made empty.
fn hints(template: &PodTemplate, pod: &Pod) -> Result<Option<(String, String)>> {
    let had = template.annotations().contains_key(RUNTIME_HINTS_ANNOTATION);
    let hints = RuntimeHints::of(pod).or(had.then(RuntimeHints::default));
    let text = hints.map(|hints| serde_json::to_string(&hints)).transpose()?;
    Ok(text.map(|text| (RUNTIME_HINTS_ANNOTATION.to_owned(), text)))
}

/// Two annotations with policies would let each side take another one.
fn check_annotations(template: &PodTemplate, form: Form) -> Result<()> {
    let (other, words) = match form {
        Form::Initdata => (AKS_ANNOTATION, "aks"),
        Form::Aks => (INITDATA_ANNOTATION, "initdata"),
    };
    match template.annotations().contains_key(other) {
        false => Ok(()),
        true => Err(failure(
            format!("the pod carries a policy in annotation {other} already, and it must have one"),
            format!("remove that annotation, or generate with --form {words}"),
        )),
    }
}

fn check_release_socket(pod: &Pod, choices: &Choices) -> Result<()> {
    let asks = pod.containers.iter().find(|container| container.release_socket);
    let asks = asks.map(|container| (container, "the release socket"));
    let sealed = ah_policygen::has_sealed(pod)?.map(|container| (container, "sealed values"));
    match (asks.or(sealed), &choices.key_service) {
        (Some((container, what)), None) => Err(failure(
            format!("container {:?} has {what}, and no key service is named", container.name),
            "--form initdata with --key-service local or a public key names one",
        )),
        _ => Ok(()),
    }
}

fn secrets(pod: &Pod) -> Vec<String> {
    let containers = pod.containers.iter();
    let variables = containers.flat_map(|container| {
        let secret = container.env.iter().filter(|variable| {
            let text = variable.value.as_literal().unwrap_or_default();
            variable.value.is_secret() && !ah_release_api::is_sealed(text.as_bytes())
        });
        secret.map(|variable| format!("{}: {}", container.name, variable.name))
    });
    variables.collect()
}

/// The file's text with tags pinned and the policies of its pods put in.
pub(crate) fn edited(file: &Input, number: usize, made: &[Made]) -> Result<String> {
    let mut edits = Edits::default();
    for pod in made.iter().filter(|pod| pod.input == number) {
        let key = match &pod.document {
            PolicyDocument::InitData(_) => INITDATA_ANNOTATION,
            PolicyDocument::Aks(_) => AKS_ANNOTATION,
        };
        let mut annotations = pod.said.clone();
        annotations.insert(key.to_owned(), pod.annotation.clone());
        edits.annotations.insert(pod.index, annotations);
        edits.images.extend(pod.images.clone());
    }
    file.manifest.edited(&edits).map_err(crate::manifest_error)
}
