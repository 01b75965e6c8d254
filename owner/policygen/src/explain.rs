//! One recorded request against a policy: allowed, or why not.

use std::fmt;

use ah_agent_api::{InputError, Request};
use ah_digest::Sha256;
use ah_permit::{Denial, Policy, PolicyError, State, decide};
use serde::Serialize;
use serde_json::Value;

use crate::cases;
use crate::data::{PolicyData, SANDBOX};
use crate::generate::DATA_MARK;
use crate::honest::{Values, apply};
use crate::request_json::Document;
use crate::show::read_data;
use crate::write;

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
    /// The document is neither `{"kind": …, "request": …}` nor a request whose kind was given.
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
    /// The document around the policy cannot be read.
    #[error(transparent)]
    Settings(#[from] ah_policy::DocumentError),
    /// A case cannot be read.
    #[error("case {number}{description}: {source}")]
    Case {
        /// Its number, from 1.
        number: usize,
        /// ` (description)`, or nothing.
        description: String,
        /// Why.
        source: Box<ExplainError>,
    },
    /// The cases that lead to a state end otherwise than they say.
    #[error(
        "case {number}{description} is {found}, expected {expected}: the state after it is not the one meant"
    )]
    Outcome {
        /// Its number, from 1.
        number: usize,
        /// ` (description)`, or nothing.
        description: String,
        /// What the policy says.
        found: &'static str,
        /// What the case says.
        expected: &'static str,
    },
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

/// One request, in one of the forms in which people have it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// JSON: `{"kind": …, "request": …}`, or with `kind` below the request alone (a policy input or protobuf JSON).
    pub document: &'a str,
    /// Rule or method name of a document that is the request alone.
    pub kind: Option<&'a str>,
    /// Cases (JSON, as [`test`](crate::test) takes them) that come before it; without them what an honest host would
    /// have done before is taken as done.
    pub after: Option<&'a str>,
}

/// Decides one request given as JSON: `{"kind": rule or method name, "request": protobuf JSON, "container": name}`,
/// missing fields filled with defaults. What comes before it in a pod's life is taken as done: the sandbox is there,
/// with the ids that the request names, and so are the containers declared before.
///
/// # Errors
/// [`ExplainError`].
pub fn explain(policy: &str, document: &str) -> Result<Explained, ExplainError> {
    answer(policy, &Question { document, kind: None, after: None })
}

/// The same for a request in any of its forms, and in a state of one's own.
///
/// # Errors
/// [`ExplainError`].
pub fn answer(policy: &str, question: &Question<'_>) -> Result<Explained, ExplainError> {
    let text = policy;
    let mut policy = Policy::compile(text)?;
    let mut document = Document::parse(question.document, question.kind)?;
    name_container(&mut document);
    let request = Request::from_json(&document.kind, document.request)?;
    let rule = request.rule_name().to_owned();
    let state = match question.after {
        Some(cases) => cases::state_after(&policy, cases)?,
        None => {
            let (mut data, input) = (read_data(&policy)?, request.to_input()?);
            if !data.trees.is_empty() {
                policy = with_volumes_copied(text, &mut data)?;
            }
            state_before(&policy, &data, &request, &input, document.container.as_deref())
        }
    };
    Ok(match decide(&policy, &state, request) {
        Ok(_) => Explained::Allowed { rule },
        Err(denial) => Explained::Denied(denial),
    })
}

/// A document that names its container needs no id of it: any one will do.
fn name_container(document: &mut Document) {
    let id = document.container.as_ref().map(|name| Sha256::of(name).to_string());
    if let (Some(id), Some(request)) = (id, document.request.as_object_mut()) {
        request.entry("container_id").or_insert(Value::String(id));
    }
}

/// The policy without the question whether volumes were copied in: one request alone cannot answer it.
fn with_volumes_copied(policy: &str, data: &mut PolicyData) -> Result<Policy, ExplainError> {
    data.containers.iter_mut().for_each(|container| container.volumes.clear());
    let json = serde_json::to_value(&*data)
        .map_err(|err| ExplainError::Data { detail: err.to_string() })?;
    let rules = policy.rsplit_once(DATA_MARK).map_or(policy, |(rules, _)| rules);
    Ok(Policy::compile(&format!("{rules}{DATA_MARK}{}\n", write::json(&json)))?)
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
            if declared.role == "init" {
                state.note_exit(&id, 0);
            }
        }
        // The decision is about a time at which an honest host asks: init containers before it have ended.
        if declared.role == "init" && (creates || declared.name != bound) {
            state.note_exit(&id, 0);
        }
    }
    state
}
