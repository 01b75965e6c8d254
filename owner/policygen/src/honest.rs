//! Honest requests made of a policy alone: its own templates, with values that a host could have.

use std::collections::BTreeMap;

use ah_agent_api::Request;
use ah_digest::Sha256;
use ah_permit::{Policy, State, decide};
use serde_json::Value;

use crate::data::{ContainerData, PolicyData, Read};

/// Decides a request and, when it is allowed, takes its changes over.
pub(crate) fn apply(policy: &Policy, state: &mut State, method: &str, json: Value) {
    let Ok(request) = Request::from_json(method, json) else { return };
    if let Ok(permit) = decide(policy, state, request) {
        let (_, changes) = permit.into_parts();
        // One decision at a time, so no other commit comes in between.
        state.commit(changes).unwrap_or_default();
    }
}

/// Values for placeholders: the request's own where it shows them, else stand-ins.
pub(crate) struct Values {
    pub(crate) sandbox_id: String,
    facts: BTreeMap<String, String>,
    /// A pod name that the policy's pattern matches.
    name: String,
}

impl Values {
    pub(crate) fn of(data: &PolicyData, input: &Value) -> Self {
        let annotation = |key: &str| {
            let value = input.get("OCI")?.get("Annotations")?.get(key)?.as_str()?;
            Some(value.to_owned())
        };
        let is_id = |id: &String| id.parse::<Sha256>().is_ok();
        let sandbox_id = annotation("io.kubernetes.cri.sandbox-id").filter(is_id);
        let name = input.pointer("/OCI/Annotations/io.kubernetes.cri.container-name");
        let declared =
            data.containers.iter().find(|c| Some(c.name.as_str()) == name.and_then(Value::as_str));
        let reads = declared.into_iter().flat_map(|container| &container.read);
        let facts = reads.filter(|(_, read)| is_fact(&read.kind));
        let facts = facts.filter_map(|(p, read)| Some((p.clone(), found(read, input)?))).collect();
        Self {
            sandbox_id: sandbox_id.unwrap_or_else(|| Sha256::of("sandbox").to_string()),
            facts,
            name: data.name_example.clone(),
        }
    }

    pub(crate) fn container(
        &self,
        data: &PolicyData,
        container: &ContainerData,
        id: &str,
    ) -> Value {
        self.fill(&data.request(container), &container.read, id)
    }

    pub(crate) fn fill(&self, template: &Value, reads: &BTreeMap<String, Read>, id: &str) -> Value {
        let mut text = template.to_string();
        for (placeholder, read) in reads {
            let value = match (read.kind.as_str(), placeholder.as_str()) {
                ("id", "$(sandbox-id)") => self.sandbox_id.clone(),
                ("id", _) => id.to_owned(),
                (kind, p) => match (self.facts.get(p).or(read.example.as_ref()), kind) {
                    (Some(fact), _) => fact.clone(),
                    (None, "name") => self.name.clone(),
                    (None, kind) => stand_in(kind, id),
                },
            };
            let quoted = Value::from(value).to_string();
            let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            text = text.replace(placeholder, inner);
        }
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn is_fact(kind: &str) -> bool {
    matches!(kind, "name" | "label" | "uid" | "subdomain" | "address" | "addresses")
}

fn stand_in(kind: &str, id: &str) -> String {
    match kind {
        "file" => "0000000000000000".to_owned(),
        "pci" => "02".to_owned(),
        "index" => "0".to_owned(),
        "cgroups" => format!("/{id}"),
        "address" | "addresses" => "10.0.0.1".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// As `value` in the rules.
fn found(read: &Read, input: &Value) -> Option<String> {
    let text = match &read.env {
        Some(name) => {
            let start = format!("{name}=");
            let env = input.pointer("/OCI/Process/Env")?.as_array()?;
            env.iter().find(|entry| entry.as_str().is_some_and(|text| text.starts_with(&start)))?
        }
        None => {
            let [oci, annotations, key] = read.path.as_slice() else { return None };
            let is_annotation = (oci.as_str(), annotations.as_str());
            (is_annotation == (Some("OCI"), Some("Annotations"))).then_some(())?;
            input.pointer("/OCI/Annotations")?.get(key.as_str()?)?
        }
    };
    let characters: Vec<char> = text.as_str()?.chars().collect();
    let end = characters.len().checked_sub(read.tail)?;
    Some(characters.get(read.skip..end)?.iter().collect())
}
