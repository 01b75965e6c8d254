//! Cases: requests with what the policy is expected to say to each, in order.

use std::fmt;

use ah_agent_api::Request;
use ah_digest::Sha256;
use ah_permit::{Denial, Policy, State, decide};
use serde::Serialize;
use serde_json::{Value, json};

use crate::data::{PolicyData, SANDBOX};
use crate::dry_run::ends;
use crate::explain::ExplainError;
use crate::honest::Values;
use crate::request_json::Document;
use crate::show::{read_data, text};

mod volumes;

/// What came of the cases of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// Each case in order.
    pub cases: Vec<Outcome>,
    /// How many ended as they say.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What the case is about.
    pub description: String,
    /// The rule that decided.
    pub rule: String,
    /// What the case says.
    pub expected_allowed: bool,
    /// What the policy says.
    pub allowed: bool,
    /// Whether the two agree.
    pub ok: bool,
    /// Why it was denied.
    pub denial: Option<Denial>,
}

/// Decides the cases of a file (JSON: a list of `{description, allowed, kind, request}`) in order, in a state that
/// begins fresh and that each allowed request changes, whatever its case expects. A container's first process that is waited
/// for has ended with exit code 0.
///
/// # Errors
/// [`ExplainError`] when policy or cases cannot be read.
pub fn test(policy: &str, cases: &str) -> Result<Tested, ExplainError> {
    let (outcomes, _) = run(&Policy::compile(policy)?, cases)?;
    let passed = outcomes.iter().filter(|outcome| outcome.ok).count();
    let failed = outcomes.len().saturating_sub(passed);
    Ok(Tested { cases: outcomes, passed, failed })
}

/// The state that cases lead to, each of which must end as it says.
pub(crate) fn state_after(policy: &Policy, cases: &str) -> Result<State, ExplainError> {
    let (outcomes, state) = run(policy, cases)?;
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    match (1..).zip(&outcomes).find(|(_, outcome)| !outcome.ok) {
        Some((number, outcome)) => Err(ExplainError::Outcome {
            number,
            description: in_brackets(&outcome.description),
            found: word(outcome.allowed),
            expected: word(outcome.expected_allowed),
        }),
        None => Ok(state),
    }
}

fn run(policy: &Policy, cases: &str) -> Result<(Vec<Outcome>, State), ExplainError> {
    let cases: Vec<Value> = serde_json::from_str(cases)
        .map_err(|error| ExplainError::Document { detail: format!("no list of cases: {error}") })?;
    let mut state = State::new();
    let mut outcomes = Vec::new();
    for (number, case) in (1..).zip(cases) {
        let description = text(case.get("description"));
        let outcome = one(policy, &mut state, case).map_err(|source| ExplainError::Case {
            number,
            description: in_brackets(&description),
            source: Box::new(source),
        })?;
        outcomes.push(outcome);
    }
    Ok((outcomes, state))
}

fn in_brackets(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!(" ({description})") }
}

fn one(policy: &Policy, state: &mut State, case: Value) -> Result<Outcome, ExplainError> {
    let document = Document::from_value(case)?;
    let expected_allowed = document.allowed.ok_or_else(|| ExplainError::Document {
        detail: "\"allowed\" is missing, true or false".to_owned(),
    })?;
    let request = Request::from_json(&document.kind, document.request)?;
    let rule = request.rule_name().to_owned();
    let ended = ends(&request).map(str::to_owned);
    let denial = match decide(policy, state, request) {
        Ok(permit) => {
            let (_, changes) = permit.into_parts();
            // One decision at a time, so no other commit comes in between.
            state.commit(changes).unwrap_or_default();
            if let Some(id) = ended {
                state.note_exit(&id, 0);
            }
            None
        }
        Err(denial) => Some(denial),
    };
    let allowed = denial.is_none();
    let ok = allowed == expected_allowed;
    Ok(Outcome { description: document.description, rule, expected_allowed, allowed, ok, denial })
}

/// Cases made of a policy alone: what an honest host asks for from the sandbox's creation to the running containers,
/// as a beginning for cases of one's own. All of them are allowed. They end before the first container with a volume of
/// pinned files: a policy has the digests of what is copied in for it, not the contents.
///
/// # Errors
/// [`ExplainError`] when the policy is not one of this generator's.
pub fn honest_cases(policy: &str) -> Result<Value, ExplainError> {
    let data = read_data(&Policy::compile(policy)?)?;
    let values = Values::of(&data, &Value::Null);
    let sandbox = values.fill(&data.sandbox.request, &data.sandbox.read, "");
    let mut cases = vec![case("the sandbox is created", "CreateSandboxRequest", sandbox)];
    for container in &data.containers {
        let name = container.name.as_str();
        let (who, id) = match name {
            SANDBOX => ("sandbox container".to_owned(), values.sandbox_id.clone()),
            _ => (format!("container {name}"), Sha256::of(name).to_string()),
        };
        let create = values.container(&data, container, &id);
        let Some(copies) = volumes::copies(&data, container, &create, &values) else { break };
        cases.extend(copied_files(&data, &create).into_iter().chain(copies).map(|request| {
            let description = format!("a file is copied in for {who}");
            case(&description, "CopyFileRequest", request)
        }));
        cases.push(case(&format!("{who} is created"), "CreateContainerRequest", create));
        let start = json!({ "container_id": id });
        cases.push(case(&format!("{who} is started"), "StartContainerRequest", start));
        if container.role == "init" {
            let wait = json!({ "container_id": id, "exec_id": id });
            cases.push(case(&format!("{who} ends"), "WaitProcessRequest", wait));
        }
    }
    Ok(Value::Array(cases))
}

fn case(description: &str, kind: &str, request: Value) -> Value {
    json!({ "description": description, "allowed": true, "kind": kind, "request": request })
}

/// The files that the mounts of a CreateContainer request take from the host.
fn copied_files(data: &PolicyData, create: &Value) -> Vec<Value> {
    let mounts = create.pointer("/OCI/Mounts").and_then(Value::as_array);
    let sources = mounts.into_iter().flatten().map(|mount| text(mount.get("source")));
    let copied = sources
        .filter(|source| data.files.iter().any(|name| source.ends_with(&format!("-{name}"))));
    copied
        .map(|path| {
            json!({ "path": path, "file_type": "Regular", "file_mode": 0o644, "dir_mode": 0o755 })
        })
        .collect()
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, case) in (1..).zip(&self.cases) {
            let mark = if case.ok { "ok    " } else { "NOT OK" };
            let word = if case.allowed { "allowed" } else { "denied" };
            let description = match case.description.as_str() {
                "" => case.rule.as_str(),
                text => text,
            };
            writeln!(f, "{mark} {number} {description}: {word}")?;
            if let Some(denial) = &case.denial {
                denial.reasons.iter().try_for_each(|reason| writeln!(f, "         {reason}"))?;
            }
            if !case.ok {
                let expected = if case.expected_allowed { "allowed" } else { "denied" };
                writeln!(f, "         expected: {expected} ({})", case.rule)?;
            }
        }
        write!(f, "{} ok, {} not ok", self.passed, self.failed)
    }
}
