//! A rule and an object to pods.

use ah_pod::{NamePiece, PodName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;

use super::adds::Words;
use super::expand;
use super::format::{Completed, NameForm, Names, PodRule, Refused, Rule, Shape};
use crate::error::Problem;
use crate::kinds::metadata;
use crate::options::Incomplete;
use crate::strict::{Failure, at, join, strict};
use crate::workload::Workload;

/// Fields of a pod template.
const TEMPLATE_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// The pods that a rule finds in an object.
pub(super) fn pods(
    rule: &Rule,
    value: &Value,
    incomplete: Incomplete,
) -> Result<Vec<Workload>, Failure> {
    rule.refused.iter().try_for_each(|refused| refuse(refused, value))?;
    let object = object_metadata(value)?;
    let mut pods = Vec::new();
    for pod in &rule.pods {
        for path in expand(value, &pod.path) {
            let mut workload = match pod.shape {
                Shape::Template => template(pod, rule, value, &object, &path)?,
                Shape::Spec => spec(pod, rule, value, &object, &path)?,
            };
            if let Some(completed) = &pod.completed
                && !completed.is_excepted(&object)
            {
                match incomplete {
                    Incomplete::Refuse => return Err((path, completed.problem())),
                    Incomplete::Accept => workload.incomplete = Some(completed.why.clone()),
                }
            }
            own(pod, &mut workload.spec);
            if let Some(adds) = &pod.adds {
                let template = template_name(value, &path);
                adds.complete(&words(&object, &template), &mut workload)?;
            }
            pods.push(workload);
        }
    }
    Ok(pods)
}

fn refuse(refused: &Refused, value: &Value) -> Result<(), Failure> {
    for path in expand(value, &refused.path) {
        let Some(found) = at(value, &path) else { continue };
        let set = |field: &String| found.get(field.as_str()).is_some_and(|value| !value.is_null());
        let problem = || Problem::Shape { why: refused.why.clone(), hint: refused.hint.clone() };
        if let Some(field) = refused.has.iter().find(|field| set(field)) {
            return Err((join(&path, field), problem()));
        }
        if refused.lacks.iter().any(|field| !set(field)) {
            return Err((path, problem()));
        }
    }
    Ok(())
}

/// Name, namespace and annotations; the rest of another kind's metadata is the cluster's to judge.
fn object_metadata(value: &Value) -> Result<ObjectMeta, Failure> {
    let keep = |field: &str| (field.to_owned(), at(value, &format!("metadata.{field}")).cloned());
    let fields = ["name", "generateName", "namespace", "annotations"].map(keep);
    let kept = fields.into_iter().filter_map(|(field, value)| Some((field, value?)));
    strict(&Value::Object(kept.collect()))
        .map_err(|(path, problem)| (join("metadata", &path), problem))
}

fn template(
    pod: &PodRule,
    rule: &Rule,
    value: &Value,
    object: &ObjectMeta,
    path: &str,
) -> Result<Workload, Failure> {
    let fields = at(value, path).and_then(Value::as_object);
    let unknown = fields
        .into_iter()
        .flat_map(|fields| fields.keys())
        .find(|key| !TEMPLATE_FIELDS.contains(&key.as_str()));
    if let Some(unknown) = unknown {
        return Err((join(path, unknown), Problem::UnknownField));
    }
    let spec_path = join(path, "spec");
    let spec = at(value, &spec_path).filter(|spec| spec.is_object());
    let spec = spec
        .ok_or_else(|| (spec_path.clone(), Problem::Missing { expected: "a pod's spec".into() }))?;
    let own = metadata(value, &join(path, "metadata"))?;
    Ok(Workload {
        spec: spec.clone(),
        spec_path,
        annotations_path: Some(join(path, "metadata.annotations")),
        labels: own.labels.unwrap_or_default(),
        annotations: own.annotations.unwrap_or_default(),
        ..Workload::new(&rule.kind, object, pod.name.of(object, &template_name(value, path))?)
    })
}

fn spec(
    pod: &PodRule,
    rule: &Rule,
    value: &Value,
    object: &ObjectMeta,
    path: &str,
) -> Result<Workload, Failure> {
    let spec = at(value, path).cloned().unwrap_or(Value::Null);
    if !spec.is_object() {
        return Err((path.into(), Problem::Missing { expected: "a pod's spec".into() }));
    }
    let map = |field: &Option<String>| -> Result<BTreeMap<String, String>, Failure> {
        let Some(field) = field else { return Ok(BTreeMap::new()) };
        let path = join(path, field);
        let found = at(value, &path).cloned().unwrap_or(Value::Null);
        let map: Option<_> =
            strict(&found).map_err(|(inner, problem)| (join(&path, &inner), problem))?;
        Ok(map.unwrap_or_default())
    };
    Ok(Workload {
        spec,
        spec_path: path.into(),
        annotations_path: pod.annotations.as_ref().map(|field| join(path, field)),
        labels: map(&pod.labels)?,
        annotations: map(&pod.annotations)?,
        ..Workload::new(&rule.kind, object, pod.name.of(object, &template_name(value, path))?)
    })
}

/// The name of a pod template, and its path.
struct Template {
    name: Option<String>,
    path: String,
}

fn template_name(value: &Value, path: &str) -> Template {
    let path = join(path, "metadata.name");
    let name = at(value, &path).and_then(Value::as_str).map(str::to_owned);
    Template { name, path }
}

fn words<'a>(object: &'a ObjectMeta, template: &'a Template) -> Words<'a> {
    Words {
        name: object.name.as_deref().unwrap_or_default(),
        namespace: object.namespace.as_deref(),
        template: template.name.as_deref(),
        template_path: &template.path,
    }
}

/// Takes the kind's own fields out of a PodSpec and names the container that has no name.
fn own(pod: &PodRule, spec: &mut Value) {
    let Value::Object(fields) = spec else { return };
    for field in pod.own_fields.iter().chain(&pod.annotations).chain(&pod.labels) {
        fields.remove(field);
    }
    let Some(name) = &pod.container_name else { return };
    let containers = fields.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
        container.entry("name").or_insert_with(|| name.as_str().into());
    }
}

impl Names {
    fn of(&self, object: &ObjectMeta, template: &Template) -> Result<PodName, Failure> {
        let missing = || {
            let expected = "a name, which the pods' names begin with".into();
            ("metadata.name".to_owned(), Problem::Missing { expected })
        };
        // a name that the API server still has to complete begins all the same
        let name = match (&object.name, &object.generate_name, self.form) {
            (Some(name), ..) => name.as_str(),
            (None, Some(prefix), NameForm::Free) => prefix.as_str(),
            (None, _, _) if !self.base.contains("{name}") => "",
            _ => return Err(missing()),
        };
        let generated = object.name.is_none() && object.generate_name.is_some();
        let base = match (self.form, generated) {
            (NameForm::Free, true) => name.to_owned(),
            _ => Words { name, ..words(object, template) }.fill(&self.base)?,
        };
        let text = |text: String| NamePiece::Text(text);
        Ok(match self.form {
            NameForm::Fixed => PodName::Fixed(base),
            NameForm::Suffixed => PodName::Suffixed { base: vec![text(format!("{base}-"))] },
            NameForm::Deployment => PodName::Suffixed {
                base: vec![text(format!("{base}-")), NamePiece::TemplateHash, text("-".into())],
            },
            NameForm::Ordinal => PodName::Ordinal { set: base },
            NameForm::Free => PodName::Generated { prefix: base },
        })
    }
}

impl Completed {
    fn is_excepted(&self, object: &ObjectMeta) -> bool {
        let Some(except) = &self.unless_annotation else { return false };
        let found = object.annotations.as_ref().and_then(|found| found.get(&except.key));
        found.is_some_and(|found| except.values.contains(found))
    }

    fn problem(&self) -> Problem {
        Problem::Shape { why: self.why.clone(), hint: self.hint.clone() }
    }
}
