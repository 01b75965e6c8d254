//! One recorded request against a policy: allowed, or why not.

use std::collections::BTreeMap;
use std::fmt;

use ah_agent_api::{InputError, Request};
use ah_digest::Sha256;
use ah_permit::{Denial, Policy, PolicyError, State, decide};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::{ContainerData, PolicyData, Read, SANDBOX};
use crate::show::read_data;

/// Why a request cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The policy does not compile.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy has no data of this generator.
    #[error("policy_data: {detail}")]
    Data {
        /// What does not fit.
        detail: String,
    },
    /// The document is not `{"kind": …, "request": …}`.
    #[error(
        "request document: {detail}, expected {{\"kind\": \"CreateContainerRequest\", \"request\": {{…}}}}"
    )]
    Document {
        /// What does not fit.
        detail: String,
    },
    /// The request does not fit its definition.
    #[error(transparent)]
    Request(#[from] InputError),
}

/// What the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Explained {
    /// The request is allowed.
    Allowed {
        /// The rule that allowed it.
        rule: String,
    },
    /// The request is denied.
    Denied(Denial),
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { rule } => write!(f, "{rule} allowed by the policy"),
            Self::Denied(denial) => denial.fmt(f),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    request: Value,
    /// The container that the request's `container_id` stands for; without it the first one.
    #[serde(default)]
    container: Option<String>,
}

/// Decides one request given as JSON: `{"kind": rule or method name, "request": protobuf JSON, "container": name}`,
/// missing fields filled with defaults. What comes before it in a pod's life is taken as done: the sandbox is there,
/// with the ids that the request names, and so are the containers declared before.
///
/// # Errors
/// [`ExplainError`].
pub fn explain(policy: &str, document: &str) -> Result<Explained, ExplainError> {
    let policy = Policy::compile(policy)?;
    let data = read_data(&policy)?;
    let document: Document = serde_json::from_str(document)
        .map_err(|err| ExplainError::Document { detail: err.to_string() })?;
    let request = Request::from_json(&document.kind, document.request)?;
    let rule = request.rule_name().to_owned();
    let input = request.to_input()?;
    let state = state_before(&policy, &data, &request, &input, document.container.as_deref());
    Ok(match decide(&policy, &state, request) {
        Ok(_) => Explained::Allowed { rule },
        Err(denial) => Explained::Denied(denial),
    })
}

/// The state in which an honest host would make this request. A predecessor that the policy denies is left out; the
/// decision then says what is missing.
fn state_before(
    policy: &Policy,
    data: &PolicyData,
    request: &Request,
    input: &Value,
    container: Option<&str>,
) -> State {
    let mut state = State::new();
    if matches!(request, Request::CreateSandbox(_)) {
        return state;
    }
    let values = Values::of(data, input);
    let sandbox = values.fill(&data.sandbox.request, &data.sandbox.read, "");
    apply(policy, &mut state, "CreateSandbox", sandbox);
    if matches!(request, Request::CopyFile(_)) {
        return state;
    }
    let own = input.get("container_id").and_then(Value::as_str).unwrap_or_default();
    let creates = matches!(request, Request::CreateContainer(_));
    let name = input.pointer("/OCI/Annotations/io.kubernetes.cri.container-name");
    let name = name.and_then(Value::as_str).unwrap_or(SANDBOX);
    let first = data.containers.iter().map(|c| c.name.as_str()).find(|name| *name != SANDBOX);
    let bound = container.or(first).unwrap_or(SANDBOX);
    for declared in &data.containers {
        if creates && declared.name == name {
            break;
        }
        let id = match declared.name.as_str() {
            SANDBOX => values.sandbox_id.clone(),
            name if !creates && name == bound => own.to_owned(),
            name => Sha256::of(name).to_string(),
        };
        let create = values.container(data, declared, &id);
        apply(policy, &mut state, "CreateContainer", create);
        if !matches!(request, Request::StartContainer(_)) || declared.name != bound {
            apply(policy, &mut state, "StartContainer", serde_json::json!({ "container_id": id }));
        }
    }
    state
}

fn apply(policy: &Policy, state: &mut State, method: &str, json: Value) {
    let Ok(request) = Request::from_json(method, json) else { return };
    if let Ok(permit) = decide(policy, state, request) {
        let (_, changes) = permit.into_parts();
        // One decision at a time, so no other commit comes in between.
        state.commit(changes).unwrap_or_default();
    }
}

/// Values for placeholders: the request's own where it shows them, else stand-ins.
struct Values {
    sandbox_id: String,
    facts: BTreeMap<String, String>,
}

impl Values {
    fn of(data: &PolicyData, input: &Value) -> Self {
        let annotation = |key: &str| {
            let value = input.get("OCI")?.get("Annotations")?.get(key)?.as_str()?;
            Some(value.to_owned())
        };
        let is_id = |id: &String| id.parse::<Sha256>().is_ok();
        let sandbox_id = annotation("io.kubernetes.cri.sandbox-id").filter(is_id);
        let name = input.pointer("/OCI/Annotations/io.kubernetes.cri.container-name");
        let declared =
            data.containers.iter().find(|c| Some(c.name.as_str()) == name.and_then(Value::as_str));
        let reads = declared.map(|container| container.read.as_slice()).unwrap_or_default();
        let facts = reads.iter().filter(|read| is_fact(&read.kind));
        let facts = facts.filter_map(|read| Some((read.p.clone(), found(read, input)?))).collect();
        Self { sandbox_id: sandbox_id.unwrap_or_else(|| Sha256::of("sandbox").to_string()), facts }
    }

    fn container(&self, data: &PolicyData, container: &ContainerData, id: &str) -> Value {
        self.fill(&data.request(container), &container.read, id)
    }

    fn fill(&self, template: &Value, reads: &[Read], id: &str) -> Value {
        let mut text = template.to_string();
        for read in reads {
            let value = match (read.kind.as_str(), read.p.as_str()) {
                ("id", "$(sandbox-id)") => self.sandbox_id.clone(),
                ("id", _) => id.to_owned(),
                (kind, p) => self.facts.get(p).cloned().unwrap_or_else(|| stand_in(kind, id)),
            };
            let quoted = Value::from(value).to_string();
            text = text.replace(&read.p, quoted.trim_matches('"'));
        }
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn is_fact(kind: &str) -> bool {
    matches!(kind, "name" | "label" | "uid" | "subdomain" | "address")
}

fn stand_in(kind: &str, id: &str) -> String {
    match kind {
        "file" => "0000000000000000".to_owned(),
        "pci" => "02".to_owned(),
        "cgroups" => format!("/{id}"),
        "address" => "10.0.0.1".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// As `value` in the rules.
fn found(read: &Read, input: &Value) -> Option<String> {
    let text = match (read.of.as_str(), &read.at) {
        ("Env", Value::Number(at)) => input.pointer(&format!("/OCI/Process/Env/{at}"))?,
        ("Annotations", Value::String(at)) => input.pointer("/OCI/Annotations")?.get(at)?,
        _ => return None,
    };
    let characters: Vec<char> = text.as_str()?.chars().collect();
    let end = characters.len().checked_sub(read.tail)?;
    Some(characters.get(read.skip..end)?.iter().collect())
}
