//! `policy_data`: what the rules know about the pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::Agent;

/// Name of the sandbox container in the policy: no Kubernetes name has brackets.
pub(crate) const SANDBOX: &str = "(sandbox)";

/// The document behind the rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyData {
    /// Which agent's rules stand with it; no rule reads it.
    #[serde(default, skip_serializing_if = "Agent::is_default")]
    pub(crate) agent: Agent,
    /// What all container requests but the sandbox's have in common.
    pub(crate) common: Value,
    /// The sandbox container, then the others in the order of their creation.
    pub(crate) containers: Vec<ContainerData>,
    /// Base names of the files that the host copies in.
    pub(crate) files: Vec<String>,
    /// Whether the host may read the containers' output.
    pub(crate) logs: bool,
    /// What the pod's name must match.
    pub(crate) name_pattern: String,
    /// A name that matches, for requests made of the policy alone; no rule reads it.
    pub(crate) name_example: String,
    /// CreateSandbox.
    pub(crate) sandbox: SandboxData,
    /// Services whose addresses the host says, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) services: Vec<String>,
    /// What is copied in for volumes of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trees: Vec<TreeData>,
}

/// The folder or file that is copied in for a mount. Mounts that have the same share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeData {
    /// Base names under which it may be copied in.
    pub(crate) names: Vec<String>,
    /// Group of its files; of folders and links it may be 0 as well.
    pub(crate) gid: u32,
    /// What is in it, by path.
    pub(crate) entries: BTreeMap<String, EntryData>,
    /// Objects of which the host chooses the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unpinned: Option<UnpinnedData>,
}

/// Files that the host chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnpinnedData {
    pub(crate) objects: Vec<String>,
    /// Type and permissions of each.
    pub(crate) mode: u32,
}

/// One part of a tree; which members it has says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum EntryData {
    Folder {
        folder: bool,
    },
    Link {
        link: String,
    },
    Pinned {
        mode: u32,
        uid: u32,
        sha256: String,
    },
    /// The value of a placeholder, alone, of this kind.
    Fact {
        mode: u32,
        uid: u32,
        is: String,
        kind: String,
    },
    /// The text says what should be there.
    Free {
        mode: u32,
        uid: u32,
        free: String,
    },
}

/// A mount whose source is a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeData {
    /// Index into the request's mounts.
    pub(crate) mount: usize,
    /// Index into the trees.
    pub(crate) tree: usize,
}

/// One container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerData {
    pub(crate) name: String,
    pub(crate) role: String,
    /// Whether it may be created again after it was removed.
    pub(crate) restart: bool,
    pub(crate) stdin: bool,
    pub(crate) exec_commands: Vec<Vec<String>>,
    /// Bounds of the OOM score where the node's memory decides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oom_score_adj: Option<[i64; 2]>,
    pub(crate) read: Vec<Read>,
    /// The request without what is in `common`.
    pub(crate) request: Value,
    /// Names of the environment variables that come from Secrets: enforced like the others, but not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    /// Its volumes of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<VolumeData>,
}

/// CreateSandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxData {
    pub(crate) dns_from_host: bool,
    pub(crate) read: Vec<Read>,
    pub(crate) request: Value,
}

/// Where the value of a placeholder stands in the incoming request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    /// The placeholder.
    pub(crate) p: String,
    /// The kind that bounds it (`bounded` in the rules).
    pub(crate) kind: String,
    /// The list, map or field that holds the text.
    pub(crate) of: String,
    /// Index or key in it; the name of an environment variable.
    pub(crate) at: Value,
    /// Characters before the value.
    pub(crate) skip: usize,
    /// Characters behind the value.
    pub(crate) tail: usize,
}

impl PolicyData {
    /// The whole request of a container, placeholders in place.
    pub(crate) fn request(&self, container: &ContainerData) -> Value {
        match container.name.as_str() {
            SANDBOX => container.request.clone(),
            _ => merged(&self.common, &container.request),
        }
    }
}

/// `object.union` of Rego: objects are merged, of anything else the second counts.
pub(crate) fn merged(base: &Value, over: &Value) -> Value {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            let mut out = base.clone();
            for (key, value) in over {
                let value = match base.get(key) {
                    Some(old) => merged(old, value),
                    None => value.clone(),
                };
                out.insert(key.clone(), value);
            }
            Value::Object(out)
        }
        (_, over) => over.clone(),
    }
}

/// The part that both have.
pub(crate) fn common(left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let both = left
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), common(value, right.get(key)?)?)));
            Some(Value::Object(both.collect()))
        }
        (left, right) => (left == right).then(|| left.clone()),
    }
}

/// What is left of `whole` when `part`, made by [`common`], is taken out.
pub(crate) fn without(whole: &Value, part: &Value) -> Option<Value> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            let rest: serde_json::Map<_, _> = whole
                .iter()
                .filter_map(|(key, value)| match part.get(key) {
                    Some(part) => Some((key.clone(), without(value, part)?)),
                    None => Some((key.clone(), value.clone())),
                })
                .collect();
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        _ => None,
    }
}
