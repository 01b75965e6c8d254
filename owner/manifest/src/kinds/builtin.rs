//! Kubernetes' own kinds that embed a pod.

use ah_pod::{NamePiece, PodName};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodTemplate, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{controllers, metadata};
use crate::error::Problem;
use crate::strict::{Failure, at, join, strict};
use crate::workload::{Restart, Workload};

/// A kind that embeds a pod.
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    /// Path of the pod template; empty where the object is the pod.
    pub(crate) template_path: &'static str,
    /// What its pods are called, for people.
    pub(crate) names: &'static str,
    /// Restart policies that it accepts.
    pub(crate) restart: Restart,
    /// Refuses what its type does not know.
    check: fn(&Value) -> Result<(), Failure>,
    /// What its pods are called.
    name: fn(&ObjectMeta) -> Option<PodName>,
    /// What its controller makes of the pod.
    complete: fn(&Value, &mut Workload) -> Result<(), Failure>,
}

/// What a row needs beside its type and name.
type Row = (&'static str, &'static str, Restart, fn(&ObjectMeta) -> Option<PodName>);

const fn kind<T: Resource + DeserializeOwned>(
    row: Row,
    complete: fn(&Value, &mut Workload) -> Result<(), Failure>,
) -> Kind {
    let (template_path, names, restart, name) = row;
    let check = |value: &Value| strict::<T>(value).map(drop);
    Kind {
        api_version: T::API_VERSION,
        kind: T::KIND,
        template_path,
        names,
        restart,
        check,
        name,
        complete,
    }
}

fn as_is(_: &Value, _: &mut Workload) -> Result<(), Failure> {
    Ok(())
}

const SUFFIXED: &str = "NAME-SUFFIX";

/// The kinds, in the order in which people meet them.
#[rustfmt::skip]
pub(crate) static KINDS: [Kind; 9] = [
    kind::<Pod>(("", "NAME, or GENERATENAME then SUFFIX", Restart::Any, of_pod), as_is),
    kind::<Deployment>(("spec.template", "NAME-HASH-SUFFIX", Restart::Always, of_deployment), as_is),
    kind::<DaemonSet>(("spec.template", SUFFIXED, Restart::Always, of_set), as_is),
    kind::<StatefulSet>(("spec.template", "NAME-ORDINAL", Restart::Always, of_stateful_set), controllers::stateful_set),
    kind::<ReplicaSet>(("spec.template", SUFFIXED, Restart::Always, of_set), as_is),
    kind::<ReplicationController>(("spec.template", SUFFIXED, Restart::Always, of_set), as_is),
    kind::<Job>(("spec.template", "NAME-SUFFIX; Indexed: NAME-INDEX-SUFFIX", Restart::Ends, of_job), controllers::job),
    kind::<CronJob>(("spec.jobTemplate.spec.template", "NAME-TIME-SUFFIX", Restart::Ends, of_cron_job), controllers::cron_job),
    kind::<PodTemplate>(("template", "any", Restart::Any, of_pod_template), as_is),
];

impl Kind {
    /// The pod of an object of this kind.
    pub(crate) fn read(&self, value: &Value) -> Result<Workload, Failure> {
        (self.check)(value)?;
        let missing = |path: &str, expected: &str| {
            (path.to_owned(), Problem::Missing { expected: expected.into() })
        };
        let object = metadata(value, "metadata")?;
        let name = (self.name)(&object).ok_or_else(|| missing("metadata.name", "a name"))?;
        let spec_path = join(self.template_path, "spec");
        let spec = at(value, &spec_path).filter(|spec| !spec.is_null());
        let spec = spec.ok_or_else(|| missing(&spec_path, "a pod's spec"))?.clone();
        let pod = metadata(value, &join(self.template_path, "metadata"))?;
        let mut workload = Workload {
            spec_path,
            annotations_path: Some(join(self.template_path, "metadata.annotations")),
            labels: pod.labels.unwrap_or_default(),
            annotations: pod.annotations.unwrap_or_default(),
            spec,
            restart: self.restart,
            ..Workload::new(self.kind, &object, name)
        };
        (self.complete)(value, &mut workload)?;
        Ok(workload)
    }
}

fn text(text: impl Into<String>) -> NamePiece {
    NamePiece::Text(text.into())
}

fn after_name(metadata: &ObjectMeta, pieces: &[NamePiece]) -> Option<PodName> {
    let name = text(format!("{}-", metadata.name.as_ref()?));
    Some(PodName::Suffixed { base: [&[name], pieces].concat() })
}

fn of_pod(metadata: &ObjectMeta) -> Option<PodName> {
    match (&metadata.name, &metadata.generate_name) {
        (Some(name), _) => Some(PodName::Fixed(name.clone())),
        (None, Some(prefix)) => Some(PodName::Suffixed { base: vec![text(prefix)] }),
        (None, None) => None,
    }
}

fn of_set(metadata: &ObjectMeta) -> Option<PodName> {
    after_name(metadata, &[])
}

/// A Deployment's ReplicaSet has the template's hash in its name.
pub(crate) fn of_deployment(metadata: &ObjectMeta) -> Option<PodName> {
    after_name(metadata, &[NamePiece::TemplateHash, text("-")])
}

fn of_stateful_set(metadata: &ObjectMeta) -> Option<PodName> {
    Some(PodName::Ordinal { set: metadata.name.clone()? })
}

/// A Job made by `kubectl create` may leave its own name to the API server.
fn of_job(metadata: &ObjectMeta) -> Option<PodName> {
    match (&metadata.name, &metadata.generate_name) {
        (Some(_), _) => after_name(metadata, &[]),
        (None, Some(prefix)) => {
            let prefix: String = prefix.chars().take(58).collect();
            Some(PodName::Suffixed { base: vec![text(prefix), NamePiece::Suffix, text("-")] })
        }
        (None, None) => None,
    }
}

fn of_cron_job(metadata: &ObjectMeta) -> Option<PodName> {
    after_name(metadata, &[NamePiece::Time, text("-")])
}

/// Whoever uses the template names the pod.
fn of_pod_template(_: &ObjectMeta) -> Option<PodName> {
    Some(PodName::Generated { prefix: String::new() })
}
