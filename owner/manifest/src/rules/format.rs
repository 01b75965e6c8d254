//! The form of a file of rules.

use serde::Deserialize;

use super::adds::Adds;
use super::is_path;
use crate::error::Problem;
use crate::strict::Failure;

/// A file.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

/// What a kind's objects hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Where the pods are.
    #[serde(default)]
    pub(crate) pods: Vec<PodRule>,
    /// What is no ordinary pod.
    #[serde(default)]
    pub(crate) refused: Vec<Refused>,
}

/// Pods at one path.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodRule {
    /// Path in the object, `[*]` after each list; a path that is not there is no pod.
    pub(crate) path: String,
    /// What is there.
    #[serde(default)]
    pub(crate) shape: Shape,
    /// What the pods are called.
    pub(crate) name: Names,
    /// For `shape: spec`: path of the pods' annotations below `path`.
    pub(crate) annotations: Option<String>,
    /// For `shape: spec`: path of the pods' labels below `path`.
    pub(crate) labels: Option<String>,
    /// Fields of the kind's own that stand among those of the PodSpec.
    #[serde(default)]
    pub(crate) own_fields: Vec<String>,
    /// What a container without a name is called.
    pub(crate) container_name: Option<String>,
    /// What the controller adds to the pods, as somebody saw it.
    pub(crate) adds: Option<Adds>,
    /// What the controller adds to the pods that no rule can know.
    pub(crate) completed: Option<Completed>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Shape {
    /// A pod template: `metadata` and `spec`.
    #[default]
    Template,
    /// A PodSpec.
    Spec,
}

/// What pods are called.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Names {
    /// How names are made of the base.
    pub(crate) form: NameForm,
    /// A text with `{name}` for the object's name, `{template}` for the pod template's.
    pub(crate) base: String,
}

/// How names are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum NameForm {
    /// The base itself.
    Fixed,
    /// The base, `-`, five random characters: as of a ReplicaSet.
    Suffixed,
    /// The base, `-`, a hash, `-`, five random characters: as of a Deployment.
    Deployment,
    /// The base, `-`, a number: as of a StatefulSet.
    Ordinal,
    /// The base, then what the controller likes.
    Free,
}

/// Why the pods are not yet what is run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Completed {
    pub(crate) why: String,
    pub(crate) hint: String,
    /// Not so where the object has this annotation with one of these values.
    pub(crate) unless_annotation: Option<AnnotationIs>,
}

/// An annotation of the object.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct AnnotationIs {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// A shape that is refused: where something at the path has one of the fields, or lacks one.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refused {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) has: Vec<String>,
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    pub(crate) why: String,
    pub(crate) hint: String,
}

impl Rule {
    pub(crate) fn is_for(&self, api_version: &str, kind: &str) -> bool {
        (self.api_version.as_str(), self.kind.as_str()) == (api_version, kind)
    }

    /// What the types cannot say.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.api_version.is_empty() || self.kind.is_empty() {
            return Err(missing("kind", "apiVersion and kind"));
        }
        for (index, pod) in self.pods.iter().enumerate() {
            let at = |field: &str| format!("pods[{index}].{field}");
            let paths = [Some(&pod.path), pod.annotations.as_ref(), pod.labels.as_ref()];
            for path in paths.into_iter().flatten() {
                require_path(path, at("path"))?;
            }
            match (pod.shape, pod.annotations.is_some()) {
                (Shape::Spec, false) => {
                    return Err(missing(&at("annotations"), "the path of the pods' annotations"));
                }
                (Shape::Template, true) => {
                    let why = "a template has its annotations in metadata".to_owned();
                    let problem = Problem::Value { found: "annotations".into(), expected: why };
                    return Err((at("annotations"), problem));
                }
                _ => {}
            }
            if let Some(adds) = &pod.adds {
                adds.check(&at("adds"))?;
            }
            let braces = pod.name.base.replace("{name}", "").replace("{template}", "");
            if braces.contains(['{', '}']) || pod.name.base.is_empty() {
                let expected =
                    "a text, with {name} for the object's name, {template} for the pod template's"
                        .into();
                let problem = Problem::Value { found: pod.name.base.clone(), expected };
                return Err((at("name.base"), problem));
            }
        }
        for (index, refused) in self.refused.iter().enumerate() {
            require_path(&refused.path, format!("refused[{index}].path"))?;
        }
        Ok(())
    }
}

fn require_path(path: &str, at: String) -> Result<(), Failure> {
    match is_path(path) {
        true => Ok(()),
        false => {
            let expected = "a path like spec.templates[*].spec".into();
            Err((at, Problem::Value { found: path.into(), expected }))
        }
    }
}

fn missing(at: &str, expected: &str) -> Failure {
    (at.into(), Problem::Missing { expected: expected.into() })
}
