//! Kinds of objects: which embed a pod, which are read for it, which pass through untouched.

use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::error::Problem;
use crate::options::{ReadOptions, UnknownPods};
use crate::strict::{Failure, at, join, strict};
use crate::workload::Workload;

mod builtin;
mod controllers;
mod page;

pub(crate) use builtin::KINDS;
pub use page::page;

/// What an object is.
pub(crate) enum Object {
    /// It embeds pods; none where its kind's rule finds none in it.
    Workloads(Vec<Workload>),
    /// Values for environment variables.
    ConfigMap(Box<ConfigMap>),
    /// Values for environment variables.
    Secret(Box<Secret>),
    /// Resources of containers that do not say them.
    LimitRange(Box<LimitRange>),
    /// Settings of pods that do not say them.
    ServiceAccount(Box<ServiceAccount>),
    /// Nothing of it reaches the guest.
    Other,
}

/// Kinds of `v1` that are not read: the group is closed, so another name in it is a mistake.
const OTHER_CORE: [&str; 10] = [
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ResourceQuota",
    "Service",
];

/// Kinds that are read for the pods of others.
const READ: [&str; 4] = ["ConfigMap", "LimitRange", "Secret", "ServiceAccount"];

/// Whether a kind has a reading of its own, so that no rule may give it another.
pub(crate) fn is_builtin(api_version: &str, kind: &str) -> bool {
    api_version == "v1"
        || KINDS.iter().any(|known| (known.api_version, known.kind) == (api_version, kind))
}

/// Reads an object.
pub(crate) fn object(value: &Value, options: &ReadOptions) -> Result<Object, Failure> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err(("kind".into(), unknown_kind(api_version, kind)));
    }
    if let Some(known) =
        KINDS.iter().find(|known| (known.api_version, known.kind) == (api_version, kind))
    {
        return known.read(&judged(value)).map(|workload| Object::Workloads(vec![workload]));
    }
    match (api_version, kind) {
        ("v1", "ConfigMap") => boxed(value).map(Object::ConfigMap),
        ("v1", "Secret") => boxed(value).map(Object::Secret),
        ("v1", "LimitRange") => boxed(value).map(Object::LimitRange),
        ("v1", "ServiceAccount") => boxed(value).map(Object::ServiceAccount),
        ("v1", other) if !OTHER_CORE.contains(&other) => {
            Err(("kind".into(), unknown_kind(api_version, kind)))
        }
        _ => other(value, options, &format!("{api_version}/{kind}")),
    }
}

/// A kind that is not Kubernetes' own: read by a rule, or without pods.
fn other(value: &Value, options: &ReadOptions, kind: &str) -> Result<Object, Failure> {
    let found = options.rules.apply(value, options.incomplete)?;
    if options.unknown_pods == UnknownPods::Refuse {
        let read: Vec<&str> = found.iter().flatten().map(|pod| pod.spec_path.as_str()).collect();
        if let Some(path) = pod_shape(value, "", &read) {
            return Err((path, Problem::PodInUnknownKind { kind: kind.into() }));
        }
    }
    Ok(found.map_or(Object::Other, Object::Workloads))
}

/// The path of something that looks like a pod: a list of containers of which one has an image.
fn pod_shape(value: &Value, path: &str, read: &[&str]) -> Option<String> {
    match value {
        Value::Object(_) if !path.is_empty() && read.contains(&path) => None,
        Value::Object(map) => {
            for key in ["containers", "initContainers", "ephemeralContainers"] {
                let items = map.get(key).and_then(Value::as_array);
                if items.into_iter().flatten().any(|item| item.get("image").is_some()) {
                    return Some(join(path, key));
                }
            }
            map.iter().find_map(|(key, value)| pod_shape(value, &join(path, key), read))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| pod_shape(item, &format!("{path}[{index}]"), read)),
        _ => None,
    }
}

fn unknown_kind(api_version: &str, kind: &str) -> Problem {
    let expected: Vec<_> = KINDS.iter().map(|known| known.kind).chain(READ).collect();
    Problem::Kind {
        found: format!("{api_version}/{kind}"),
        expected: format!("{}, List or a kind without pods", expected.join(", ")),
    }
}

fn boxed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<Box<T>, Failure> {
    strict(&judged(value)).map(Box::new)
}

/// The object without what the cluster reports about it (`kubectl get -o yaml`): nothing of it
/// reaches the guest, and newer clusters report more than this version of the API knows.
fn judged(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    }
    value
}

/// `metadata` at a path, strictly; nothing there is empty metadata.
pub(crate) fn metadata(value: &Value, path: &str) -> Result<ObjectMeta, Failure> {
    let found = at(value, path).cloned().unwrap_or(Value::Null);
    let metadata: Option<ObjectMeta> =
        strict(&found).map_err(|(inner, problem)| (join(path, &inner), problem))?;
    Ok(metadata.unwrap_or_default())
}
