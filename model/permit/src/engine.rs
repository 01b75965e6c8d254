//! The Rego engine: compiled once, reused between decisions, the state handed over with each.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};

use ah_agent_api::request_names;
use regorus::{Engine, PolicyLengthConfig, Value};

use crate::state::State;

/// The package of the agent policy convention.
pub const PACKAGE: &str = "agent_policy";
/// Longest policy text, bytes (agent policy convention: 16 MiB).
pub const MAX_POLICY_BYTES: usize = 16 << 20;
/// Most lines of a policy (agent policy convention: 200,000).
pub const MAX_LINES: usize = 200_000;
/// Longest line, bytes (agent policy convention: 64 KiB).
pub const MAX_COLUMNS: u32 = 64 << 10;

/// The rule by which a policy would turn denials into warnings.
const BYPASS: &str = "AllowRequestsFailingPolicy";
/// The rule that holds what the generator knows about the pod, by convention.
const DATA: &str = "policy_data";
/// A policy that wants its denials explained has a rule with this before the request's name. It is evaluated after a
/// denial only, and cannot undo it.
pub(crate) const EXPLAIN_PREFIX: &str = "explain_";
/// Where the engine finds that data when the text allows it to be taken out of the rules.
const CONSTANTS: &str = "anchorhold_policy_data";
/// The engine's name for the one policy text.
const SOURCE: &str = "policy.rego";
/// Members of the input under which a decision's state and request reach the engine, and the variable of the answer.
const PSTATE: &str = "pstate";
const GUEST: &str = "guest";
const REQUEST: &str = "request";
const ANSWER: &str = "answer";

/// Why a text is not a policy. The owner is to blame for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`MAX_POLICY_BYTES`].
    #[error("policy is too large: found {found} bytes, expected at most {MAX_POLICY_BYTES}")]
    TooLarge {
        /// Its length, bytes.
        found: usize,
    },
    /// Not Rego, or over the limits on lines and columns.
    #[error("policy does not compile: {detail}")]
    Rego {
        /// What the engine says.
        detail: String,
    },
    /// Another package.
    #[error("policy package: found {found:?}, expected {PACKAGE:?}")]
    Package {
        /// The package found.
        found: String,
    },
    /// The policy asks that denied requests be carried out.
    #[error("policy sets {BYPASS} to {found}, expected false: no switch removes a check")]
    Bypass {
        /// The value found.
        found: String,
    },
    /// No rule has the name of a request: such a policy denies everything, which is never meant.
    #[error("policy has no rule for any request")]
    NoRules,
}

/// A compiled policy.
pub struct Policy {
    engine: Mutex<Engine>,
    declared: BTreeSet<String>,
    /// The text without the data that was taken out of it.
    rules: String,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").finish_non_exhaustive()
    }
}

/// What a rule says.
pub(crate) struct Evaluated {
    /// `None` when the rule is undefined or missing.
    pub(crate) value: Option<Value>,
    /// What the rule printed.
    pub(crate) prints: Vec<String>,
}

impl Policy {
    /// Compiles a policy text.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn compile(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge { found: text.len() });
        }
        let mut engine = new_engine();
        let (rules, constants) = split_data(text);
        let package = engine.add_policy(SOURCE.to_owned(), rules.clone()).map_err(rego)?;
        if package.strip_prefix("data.") != Some(PACKAGE) {
            let found = package.trim_start_matches("data.").to_owned();
            return Err(PolicyError::Package { found });
        }
        let declared = declared_rules(&engine)?;
        if !request_names().any(|name| declared.contains(name)) {
            return Err(PolicyError::NoRules);
        }
        if let Some(constants) = constants {
            engine.add_data(constants).map_err(rego)?;
        }
        let policy = Self { engine: Mutex::new(engine), declared, rules };
        policy.refuse_bypass()?;
        Ok(policy)
    }

    /// Compiles another text. Where its rules are the same and only the data behind them is another, the compiled rules
    /// are used again: for a generator that makes many policies.
    ///
    /// # Errors
    /// As [`Policy::compile`], with the same checks.
    pub fn compile_alike(&self, text: &str) -> Result<Self, PolicyError> {
        let fits = text.len() <= MAX_POLICY_BYTES;
        let (rules, constants) = if fits { split_data(text) } else { (String::new(), None) };
        let Some(constants) = constants.filter(|_| rules == self.rules) else {
            return Self::compile(text);
        };
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        engine.clear_data();
        engine.add_data(constants).map_err(rego)?;
        let policy = Self { engine: Mutex::new(engine), declared: self.declared.clone(), rules };
        policy.refuse_bypass()?;
        Ok(policy)
    }

    fn refuse_bypass(&self) -> Result<(), PolicyError> {
        let input = Value::new_object();
        let evaluated = self
            .evaluate(BYPASS, &State::new(), &input)
            .map_err(|detail| PolicyError::Rego { detail })?;
        match evaluated.value {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(found) => Err(PolicyError::Bypass { found: found.to_string() }),
        }
    }

    /// Evaluates `data.agent_policy.<rule>`. A missing rule is undefined.
    ///
    /// A change of the engine's data makes it analyse the whole policy again (1.2 ms of the 1.3 ms that a decision took), so
    /// its data never changes: the state comes with the input, and the query puts both where the rules look for them.
    pub(crate) fn evaluate(
        &self,
        rule: &str,
        state: &State,
        input: &Value,
    ) -> Result<Evaluated, String> {
        if !self.declared.contains(rule) {
            return Ok(Evaluated { value: None, prints: Vec::new() });
        }
        let query = format!(
            "{ANSWER} := data.{PACKAGE}.{rule} with data.{PSTATE} as input.{PSTATE} with data.{GUEST} as input.{GUEST} \
             with input as input.{REQUEST}"
        );
        // A panic while the lock was held leaves an engine that evaluates from scratch each time; it is still sound.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.set_input(beside_state(input, state)?);
        let results = engine.eval_query(query, false);
        let prints = engine.take_prints().unwrap_or_default();
        let value = match results.map_err(text)?.result.as_slice() {
            [] => None,
            [one] => {
                one.bindings.as_object().ok().and_then(|b| b.get(&Value::from(ANSWER))).cloned()
            }
            _ => return Err(format!("rule {rule} has more than one value")),
        };
        Ok(Evaluated { value: value.filter(|value| *value != Value::Undefined), prints })
    }

    /// The policy's `policy_data`, for showing it to people; `None` when it has none.
    ///
    /// # Errors
    /// The engine's text when the rule fails.
    pub fn data(&self) -> Result<Option<serde_json::Value>, String> {
        let input = Value::new_object();
        let value = self.evaluate(DATA, &State::new(), &input)?.value;
        value.map(|value| serde_json::to_value(value).map_err(text)).transpose()
    }
}

/// The input that the query takes apart again.
fn beside_state(request: &Value, state: &State) -> Result<Value, String> {
    let document = state.document().as_object().map_err(text)?;
    let mut input = Value::new_object();
    let members = input.as_object_mut().map_err(text)?;
    for part in [PSTATE, GUEST] {
        let part = Value::from(part);
        let held = document.get(&part).cloned().unwrap_or_else(Value::new_object);
        members.insert(part, held);
    }
    members.insert(Value::from(REQUEST), request.clone());
    Ok(input)
}

/// Which of the rules that this crate asks for the policy has.
fn declared_rules(engine: &Engine) -> Result<BTreeSet<String>, PolicyError> {
    let explain = request_names().map(|name| format!("{EXPLAIN_PREFIX}{name}"));
    let others = [BYPASS, DATA].map(str::to_owned);
    let mut declared = BTreeSet::new();
    for name in request_names().map(str::to_owned).chain(explain).chain(others) {
        if engine.has_declared_rule_rooted_at(SOURCE, &name).map_err(rego)? {
            declared.insert(name);
        }
    }
    Ok(declared)
}

/// Takes a `policy_data := <JSON>` that ends the text out of the rules, and gives it to the engine as data, under
/// another name that the rules do not use: as a rule it would be built anew for each decision. Rego reads JSON as
/// JSON, so the rules see the same value. Where the tail is anything else the text stays as it is.
fn split_data(text: &str) -> (String, Option<Value>) {
    let start = format!("\n{DATA} := ");
    let split = text.rsplit_once(start.as_str()).filter(|(rules, _)| !rules.contains(CONSTANTS));
    let json = |tail: &str| serde_json::from_str::<serde_json::Value>(tail).ok();
    match split.and_then(|(rules, tail)| Some((rules, tail, json(tail)?))) {
        Some((rules, tail, json)) if lines_fit(tail) => {
            let constants = serde_json::json!({ CONSTANTS: json });
            (format!("{rules}{start}data.{CONSTANTS}\n"), Some(Value::from(constants)))
        }
        _ => (text.to_owned(), None),
    }
}

/// The limits hold for the whole text, also for the part that the engine does not read.
fn lines_fit(tail: &str) -> bool {
    let most = usize::try_from(MAX_COLUMNS).unwrap_or(usize::MAX);
    tail.lines().all(|line| line.len() < most) && tail.lines().count() < MAX_LINES
}

fn new_engine() -> Engine {
    let mut engine = Engine::new();
    // Agent policy convention: v0 syntax, failing builtins are undefined, prints are collected.
    engine.set_rego_v0(true);
    engine.set_strict_builtin_errors(false);
    engine.set_gather_prints(true);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::new(MAX_COLUMNS).unwrap_or(NonZeroU32::MIN),
        max_file_bytes: NonZeroUsize::new(MAX_POLICY_BYTES).unwrap_or(NonZeroUsize::MIN),
        max_lines: NonZeroUsize::new(MAX_LINES).unwrap_or(NonZeroUsize::MIN),
    });
    engine
}

fn text(err: impl std::fmt::Display) -> String {
    let text = err.to_string();
    text.trim().chars().take(500).collect()
}

fn rego(err: impl std::fmt::Display) -> PolicyError {
    PolicyError::Rego { detail: text(err) }
}
