//! `policy_data`: what the rules know about the pod.

use std::collections::BTreeMap;

use ah_grant::{FragmentSource, OwnerKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::Agent;
use crate::bounds::{BoundData, WordData};

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
    /// The same of what has placeholders.
    pub(crate) common_fill: Value,
    /// The sandbox container, then the others in the order of their creation.
    pub(crate) containers: Vec<ContainerData>,
    /// Index of each container by its name.
    pub(crate) places: BTreeMap<String, usize>,
    /// Indices of the containers whose successors wait for more than their creation.
    pub(crate) waits: Vec<usize>,
    /// Whose debug grants count; the rules for them stand with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) debug_key: Option<OwnerKey>,
    /// Who may add containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fragments: Vec<FragmentSource>,
    /// What those may be: a container without its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sidecar: Option<Box<ContainerData>>,
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
    /// Whether keys and execs wait until every container has been created.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) whole: bool,
}

fn is_false(value: &bool) -> bool {
    !value
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
    /// The value of a placeholder, of this kind, behind a text.
    Fact {
        mode: u32,
        uid: u32,
        is: String,
        kind: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        before: String,
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
    /// Commands with words that may vary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exec_patterns: Vec<Vec<WordData>>,
    /// Where it writes its termination message, if the host may read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) termination_log: Option<String>,
    /// The signal that stops it, where that is another than SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<u32>,
    /// Bounds of the OOM score where the node's memory decides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oom_score_adj: Option<[i64; 2]>,
    /// Where each placeholder's value stands.
    pub(crate) read: BTreeMap<String, Read>,
    /// The request's members without placeholders, and without what is in `common`.
    pub(crate) request: Value,
    /// Those with placeholders, without what is in `common_fill`.
    pub(crate) fill: Value,
    /// Names of the environment variables that come from Secrets: enforced like the others, but not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    /// Its volumes of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<VolumeData>,
    /// What it is on other platforms, where their images differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) variants: Vec<VariantData>,
}

/// The parts of a container that its image decides, for another platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariantData {
    /// `os/architecture`; no rule reads it.
    pub(crate) platform: String,
    pub(crate) read: BTreeMap<String, Read>,
    pub(crate) request: Value,
    pub(crate) fill: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<VolumeData>,
}

impl ContainerData {
    /// The container as it is on each other platform.
    pub(crate) fn on_other_platforms(&self) -> impl Iterator<Item = (&str, Self)> {
        let alone = Self { variants: Vec::new(), ..self.clone() };
        self.variants.iter().map(move |variant| {
            let VariantData { platform, read, request, fill, volumes } = variant;
            let (read, volumes) = (read.clone(), volumes.clone());
            let (request, fill) = (request.clone(), fill.clone());
            (platform.as_str(), Self { read, request, fill, volumes, ..alone.clone() })
        })
    }
}

/// CreateSandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxData {
    pub(crate) dns_from_host: bool,
    pub(crate) read: BTreeMap<String, Read>,
    pub(crate) request: Value,
}

/// Where the value of a placeholder stands in the incoming request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    /// The kind that bounds it (`bounded` in the rules).
    pub(crate) kind: String,
    /// Members and indices that lead to the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) path: Vec<Value>,
    /// The environment variable that is the text, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<String>,
    /// Whether the value is the same everywhere in the pod.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) fact: bool,
    /// Characters before the value.
    pub(crate) skip: usize,
    /// Characters behind the value.
    pub(crate) tail: usize,
    /// The owner's bound, where it is not one of the kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<BoundData>,
    /// A value within it, the owner's own, for requests made of the policy alone; no rule reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) example: Option<String>,
}

impl PolicyData {
    /// The whole request of a container, placeholders in place.
    pub(crate) fn request(&self, container: &ContainerData) -> Value {
        let own = merged(&container.request, &container.fill);
        match container.name.as_str() {
            SANDBOX => own,
            _ => merged(&merged(&self.common, &self.common_fill), &own),
        }
    }
}

/// Parts a request: members without placeholders, and those with. A list is one member.
pub(crate) fn parted(
    value: &Value,
    varies: &dyn Fn(&str) -> bool,
) -> (Option<Value>, Option<Value>) {
    let has = |value: &Value| texts_of(value).iter().any(|text| varies(text));
    match value {
        Value::Object(map) if !map.is_empty() => {
            let (mut fixed, mut fill) = (serde_json::Map::new(), serde_json::Map::new());
            for (key, value) in map {
                let (left, right) = parted(value, varies);
                fixed.extend(left.map(|left| (key.clone(), left)));
                fill.extend(right.map(|right| (key.clone(), right)));
            }
            let some = |map: serde_json::Map<_, _>| (!map.is_empty()).then_some(Value::Object(map));
            (some(fixed), some(fill))
        }
        value if has(value) => (None, Some(value.clone())),
        value => (Some(value.clone()), None),
    }
}

fn texts_of(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(values) => values.iter().flat_map(texts_of).collect(),
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| std::iter::once(key.as_str()).chain(texts_of(value)))
            .collect(),
        _ => Vec::new(),
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
