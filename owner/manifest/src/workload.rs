//! A pod as an object embeds it: where it is, what it is called, what its controller makes of it.

use std::collections::BTreeMap;

use ah_pod::{PodName, RestartPolicy, Text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// A pod embedded in an object.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Kind of the object.
    pub(crate) kind: String,
    /// `metadata.name` of the object.
    pub(crate) object_name: String,
    /// `metadata.namespace` of the object.
    pub(crate) namespace: Option<String>,
    /// Path of the PodSpec in the object.
    pub(crate) spec_path: String,
    /// Path of the pod's annotations in the object; `None` where the object has no place for them.
    pub(crate) annotations_path: Option<String>,
    /// What its pods are called.
    pub(crate) pod_name: PodName,
    /// Labels of the pods, as written.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations of the pods, as written.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Labels and annotations that the controller adds.
    pub(crate) added: BTreeMap<String, Text>,
    /// The PodSpec with what the controller adds to it.
    pub(crate) spec: Value,
    /// Where added parts of the spec come from: prefix of a path in the spec, path in the object.
    pub(crate) origins: Vec<(String, String)>,
    /// Restart policies that Kubernetes accepts here.
    pub(crate) restart: Restart,
    /// How many of the last containers are the controller's and not in the object.
    pub(crate) added_containers: usize,
    /// What the controller adds that nobody can know from the object.
    pub(crate) incomplete: Option<String>,
}

/// Restart policies that a kind accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Each.
    Any,
    /// `Always`, which is the default.
    Always,
    /// `OnFailure` or `Never`, said.
    Ends,
    /// `Never`, said: a Job that judges how its pods failed.
    Never,
}

impl Restart {
    /// Whether a policy, `None` where it is unset, is accepted.
    pub(crate) fn accepts(self, policy: Option<RestartPolicy>) -> bool {
        use RestartPolicy as P;
        match self {
            Self::Any => true,
            Self::Always => matches!(policy, None | Some(P::Always)),
            Self::Ends => matches!(policy, Some(P::OnFailure | P::Never)),
            Self::Never => policy == Some(P::Never),
        }
    }

    /// The policies, for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Any => "Always, OnFailure or Never",
            Self::Always => "Always",
            Self::Ends => "OnFailure or Never",
            Self::Never => "Never",
        }
    }
}

impl Workload {
    /// A pod of an object, with nothing added by a controller.
    pub(crate) fn new(kind: &str, object: &ObjectMeta, pod_name: PodName) -> Self {
        let name = object.name.as_ref().or(object.generate_name.as_ref());
        Self {
            kind: kind.into(),
            object_name: name.cloned().unwrap_or_default(),
            namespace: object.namespace.clone(),
            spec_path: String::new(),
            annotations_path: None,
            pod_name,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            added: BTreeMap::new(),
            spec: Value::Null,
            origins: Vec::new(),
            restart: Restart::Any,
            added_containers: 0,
            incomplete: None,
        }
    }

    /// The path in the object for a path below the spec.
    pub(crate) fn origin(&self, path: &str) -> String {
        let added = self.origins.iter().find_map(|(prefix, origin)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{origin}{rest}"))
        });
        added.unwrap_or_else(|| crate::strict::join(&self.spec_path, path))
    }
}
