//! Kinds of objects: which embed a pod, which are read for it, which pass through untouched.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use ah_pod::PodName;

use crate::error::{ManifestError, Place, Problem, YamlProblem};

/// What one document is.
pub(crate) enum Object {
    /// It embeds a pod.
    Workload(Box<Workload>),
    /// Values for environment variables.
    ConfigMap(Box<ConfigMap>),
    /// Values for environment variables.
    Secret(Box<Secret>),
    /// Nothing of it reaches the guest.
    Other,
}

/// A pod embedded in an object.
pub(crate) struct Workload {
    /// `apiVersion/kind`.
    pub(crate) kind: &'static str,
    /// `metadata.name` of the object.
    pub(crate) object_name: String,
    /// `metadata.namespace` of the object.
    pub(crate) namespace: Option<String>,
    /// Path of the pod template in the object; empty where the object is the pod.
    pub(crate) template_path: &'static str,
    /// What its pods are called.
    pub(crate) pod_name: PodName,
    /// Metadata of the pods.
    pub(crate) metadata: ObjectMeta,
    /// Their spec.
    pub(crate) spec: PodSpec,
    /// Whether only `restartPolicy: Always` is allowed.
    pub(crate) always_restarts: bool,
}

/// A kind that embeds a pod. The next kinds are rows here.
struct WorkloadKind {
    api_version: &'static str,
    kind: &'static str,
    template_path: &'static str,
    read: fn(&Value) -> Result<Parts, Failure>,
    pod_name: fn(&ObjectMeta) -> Option<PodName>,
    always_restarts: bool,
}

/// Metadata of the object, metadata of its pods, spec of its pods.
type Parts = (ObjectMeta, Option<ObjectMeta>, Option<PodSpec>);

/// A path inside the object and what is wrong there.
type Failure = (String, Problem);

const WORKLOADS: [WorkloadKind; 2] = [
    WorkloadKind {
        api_version: Pod::API_VERSION,
        kind: Pod::KIND,
        template_path: "",
        read: |value| {
            let pod: Pod = strict(value)?;
            Ok((pod.metadata.clone(), Some(pod.metadata), pod.spec))
        },
        pod_name: |metadata| match (&metadata.name, &metadata.generate_name) {
            (Some(name), _) => Some(PodName::Fixed(name.clone())),
            (None, Some(prefix)) => Some(PodName::Generated { prefix: prefix.clone() }),
            (None, None) => None,
        },
        always_restarts: false,
    },
    WorkloadKind {
        api_version: Deployment::API_VERSION,
        kind: Deployment::KIND,
        template_path: "spec.template",
        read: |value| {
            let deployment: Deployment = strict(value)?;
            let template = deployment.spec.map(|spec| spec.template).unwrap_or_default();
            Ok((deployment.metadata, template.metadata, template.spec))
        },
        pod_name: generated_by_controller,
        always_restarts: true,
    },
];

/// Kinds of which nothing reaches the guest: they embed no pod.
const PASS_THROUGH: [(&str, &str); 22] = [
    ("v1", "Namespace"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("v1", "PersistentVolume"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "LimitRange"),
    ("v1", "ResourceQuota"),
    ("v1", "Endpoints"),
    ("autoscaling/v1", "HorizontalPodAutoscaler"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "IngressClass"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("node.k8s.io/v1", "RuntimeClass"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];

/// Reads one document as what its kind says.
pub(crate) fn object(value: &Value) -> Result<Object, ManifestError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let fail =
        |(path, problem): Failure| ManifestError::new(Place { path, ..Place::default() }, problem);
    for workload in &WORKLOADS {
        if (workload.api_version, workload.kind) == (api_version, kind) {
            return read_workload(workload, value)
                .map(|workload| Object::Workload(Box::new(workload)))
                .map_err(fail);
        }
    }
    match (api_version, kind) {
        ("v1", "ConfigMap") => {
            strict(value).map(|map| Object::ConfigMap(Box::new(map))).map_err(fail)
        }
        ("v1", "Secret") => strict(value).map(|map| Object::Secret(Box::new(map))).map_err(fail),
        other if PASS_THROUGH.contains(&other) => Ok(Object::Other),
        _ => Err(fail(("kind".into(), unknown_kind(api_version, kind)))),
    }
}

fn unknown_kind(api_version: &str, kind: &str) -> Problem {
    let expected: Vec<_> = WORKLOADS.iter().map(|known| known.kind).collect();
    Problem::Kind {
        found: format!("{api_version}/{kind}"),
        expected: format!("{}, ConfigMap, Secret or a kind without pods", expected.join(", ")),
    }
}

fn read_workload(kind: &WorkloadKind, value: &Value) -> Result<Workload, Failure> {
    let (object, metadata, spec) = (kind.read)(value)?;
    let missing = |path: &str, expected: &str| {
        (path.to_owned(), Problem::Missing { expected: expected.into() })
    };
    let spec_path = join(kind.template_path, "spec");
    let spec = spec.ok_or_else(|| missing(&spec_path, "a pod's spec"))?;
    let pod_name = (kind.pod_name)(&object).ok_or_else(|| missing("metadata.name", "a name"))?;
    Ok(Workload {
        kind: kind.kind,
        object_name: object.name.or(object.generate_name).unwrap_or_default(),
        namespace: object.namespace,
        template_path: kind.template_path,
        pod_name,
        metadata: metadata.unwrap_or_default(),
        spec,
        always_restarts: kind.always_restarts,
    })
}

fn generated_by_controller(metadata: &ObjectMeta) -> Option<PodName> {
    let name = metadata.name.as_ref()?;
    Some(PodName::Generated { prefix: format!("{name}-") })
}

/// Joins two paths, of which the first may be empty.
pub(crate) fn join(path: &str, field: &str) -> String {
    match path.is_empty() {
        true => field.into(),
        false => format!("{path}.{field}"),
    }
}

/// Deserialises and refuses whatever the type does not know.
fn strict<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    let mut unknown = None;
    let read: Result<T, serde_json::Error> = serde_ignored::deserialize(value.clone(), |path| {
        unknown.get_or_insert_with(|| dotted(&path));
    });
    match (unknown, read) {
        (Some(path), _) => Err((path, Problem::UnknownField)),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => {
            let path = type_error_path::<T>(value).unwrap_or_default();
            Err((path, Problem::Type { detail: error.to_string() }))
        }
    }
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

/// The values of a ConfigMap.
pub(crate) fn config_map_values(map: &ConfigMap) -> BTreeMap<String, String> {
    map.data.clone().unwrap_or_default()
}

/// The values of a Secret, `stringData` over `data`; `None` for one that is not text.
pub(crate) fn secret_values(secret: &Secret) -> BTreeMap<String, Option<String>> {
    let bytes = secret.data.iter().flatten();
    let decoded = bytes.map(|(key, value)| (key.clone(), String::from_utf8(value.0.clone()).ok()));
    let plain = secret.string_data.iter().flatten();
    decoded.chain(plain.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

/// Refuses a document that is not a mapping.
pub(crate) fn require_mapping(value: &Value) -> Result<(), ManifestError> {
    match value.is_object() {
        true => Ok(()),
        false => {
            let problem = YamlProblem::Syntax("document is not a mapping".into());
            Err(ManifestError::new(Place::default(), problem))
        }
    }
}
