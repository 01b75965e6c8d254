//! What a controller adds to pods, where a rule says it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Problem;
use crate::strict::Failure;
use crate::workload::Workload;

/// What the controller of a cluster adds: as the owner saw it there.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Adds {
    /// Variables of each container of the object, after its own.
    #[serde(default)]
    pub(crate) env: Vec<Variable>,
    /// Mounts of each container of the object, after its own.
    #[serde(default, rename = "volumeMounts")]
    pub(crate) volume_mounts: Vec<Map<String, Value>>,
    /// Containers after the object's own, in the form of a PodSpec's.
    #[serde(default)]
    pub(crate) containers: Vec<Map<String, Value>>,
    /// Volumes after the object's own.
    #[serde(default)]
    pub(crate) volumes: Vec<Map<String, Value>>,
}

/// A variable.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// What `{name}`, `{namespace}` and `{template}` in a rule's texts stand for.
pub(super) struct Words<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a str>,
    /// Name of the pod template, and where it is said.
    pub(super) template: Option<&'a str>,
    pub(super) template_path: &'a str,
}

impl Adds {
    /// The images of containers that are added stand in no file that could be pinned.
    pub(super) fn check(&self, at: &str) -> Result<(), Failure> {
        for (index, container) in self.containers.iter().enumerate() {
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            if !image.contains("@sha256:") {
                let expected = "an image with its digest, NAME@sha256:…".to_owned();
                let problem = Problem::Value { found: image.into(), expected };
                return Err((format!("{at}.containers[{index}].image"), problem));
            }
        }
        Ok(())
    }

    /// The pod as the controller makes it.
    pub(super) fn complete(
        &self,
        words: &Words<'_>,
        workload: &mut Workload,
    ) -> Result<(), Failure> {
        let Value::Object(spec) = &mut workload.spec else { return Ok(()) };
        if let Some(containers) = list(spec, "containers") {
            for container in containers.iter_mut().filter_map(Value::as_object_mut) {
                self.add_parts(words, container)?;
            }
            containers.extend(words.fill_each(&self.containers)?);
            workload.added_containers = self.containers.len();
        }
        if let Some(volumes) = list(spec, "volumes") {
            volumes.extend(words.fill_each(&self.volumes)?);
        }
        Ok(())
    }

    fn add_parts(
        &self,
        words: &Words<'_>,
        container: &mut Map<String, Value>,
    ) -> Result<(), Failure> {
        if let Some(env) = list(container, "env") {
            for variable in &self.env {
                env.push(json!({"name": variable.name, "value": words.fill(&variable.value)?}));
            }
        }
        if let Some(mounts) = list(container, "volumeMounts") {
            mounts.extend(words.fill_each(&self.volume_mounts)?);
        }
        Ok(())
    }
}

impl Words<'_> {
    /// A text with the words in their places.
    pub(super) fn fill(&self, text: &str) -> Result<String, Failure> {
        let mut text = text.replace("{name}", self.name);
        for (word, value, path) in [
            ("{template}", self.template, self.template_path),
            ("{namespace}", self.namespace, "metadata.namespace"),
        ] {
            if text.contains(word) {
                let expected = format!("a name, which {word} of the kind's rule stands for");
                let value = value.filter(|value| !value.is_empty());
                let value = value.ok_or((path.to_owned(), Problem::Missing { expected }))?;
                text = text.replace(word, value);
            }
        }
        Ok(text)
    }

    fn fill_each(&self, objects: &[Map<String, Value>]) -> Result<Vec<Value>, Failure> {
        objects.iter().map(|object| self.fill_all(&Value::Object(object.clone()))).collect()
    }

    fn fill_all(&self, value: &Value) -> Result<Value, Failure> {
        Ok(match value {
            Value::String(text) => self.fill(text)?.into(),
            Value::Array(items) => {
                items.iter().map(|item| self.fill_all(item)).collect::<Result<_, _>>()?
            }
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Ok((key.clone(), self.fill_all(value)?)))
                .collect::<Result<Map<_, _>, Failure>>()?
                .into(),
            other => other.clone(),
        })
    }
}

/// A list of an object, made where there is none; what is no list is refused when the pod is read.
fn list<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    let value = map.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}
