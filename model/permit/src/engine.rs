//! The Rego engine: compiled once, reused between decisions, the state handed over with each.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, OnceLock, PoisonError};

use ah_agent_api::request_names;
use ah_grant::OwnerKey;
use regorus::{Engine, PolicyLengthConfig, Value};

use crate::recursion::check_recursion;
use crate::state::State;
use crate::text::{CONSTANTS, Parts, check_brackets};

/// The package of the agent policy convention.
pub const PACKAGE: &str = "agent_policy";
/// Longest policy text, bytes (agent policy convention: 16 MiB).
pub const MAX_POLICY_BYTES: usize = 16 << 20;
/// Most lines of a policy (agent policy convention: 200,000).
pub const MAX_LINES: usize = 200_000;
/// Longest line, bytes (agent policy convention: 64 KiB).
pub const MAX_COLUMNS: u32 = 64 << 10;

/// Most characters of the rules that the engine's parser may read once more, counted each time. It reads the first element of each
/// bracket twice, so that 27 brackets one in another take it 10 s; the rules of a generated policy have it read 25,000.
pub const MAX_REREADING: u64 = 1 << 21;
/// Most brackets of the rules that are one in another; the engine's parser calls itself for each. Those of a generated policy are under 10.
pub const MAX_NESTING: usize = 64;
/// Most minus signs of the rules; the engine's parser calls itself for one before a value. A generated policy has about ten.
pub const MAX_MINUS_SIGNS: usize = 100;

/// Most operations of the rules that are one in another (`a.b`, `1 + 1`, `x in y`), counted by the characters of their operators. Those of a
/// generated policy are under 40.
pub const MAX_DEPTH: usize = 256;

/// Most words of the rules that are in no bracket: there are at least as many as rules, and the engine compares each rule with all others. A
/// generated policy has about 2,000.
pub const MAX_TOP_WORDS: usize = 20_000;

/// Most statements of a query: the engine numbers them with 16 bits, and from 65,536 on reads others in their places. A generated policy has at most 15.
pub const MAX_STATEMENTS: usize = 4096;
/// Most loops of a rule: the engine does what stands behind one within it, and so calls itself for each. What counts is each `x[y]` and each `in` of the
/// outermost bracket. Those of a generated policy are under 10.
pub const MAX_LOOPS: usize = 128;

/// The rule by which a policy would turn denials into warnings.
const BYPASS: &str = "AllowRequestsFailingPolicy";
/// The rule that holds what the generator knows about the pod, by convention.
pub(crate) const DATA: &str = "policy_data";
/// The rule that decides whether containers get keys now. No request of the host has this name.
pub(crate) const RELEASE_KEY: &str = "ReleaseKeyRequest";
/// The rule that decides the exec of a debug grant, and the one that holds the key whose grants count. No request of the host has
/// these names, and a policy without them has no debug sessions.
pub(crate) const DEBUG_EXEC: &str = "DebugExecRequest";
const DEBUG_KEY: &str = "debug_key";
/// A policy that wants its denials explained has a rule with this before the request's name. It is evaluated after a
/// denial only, and cannot undo it.
pub(crate) const EXPLAIN_PREFIX: &str = "explain_";
/// The engine's name for the one policy text.
const SOURCE: &str = "policy.rego";
/// The package that asks the policy: one rule for each rule of it that is asked for, of the same name.
const ASKING: &str = "anchorhold_asking";
/// Members of the input under which a decision's state and request reach the engine.
const PSTATE: &str = "pstate";
const GUEST: &str = "guest";
const REQUEST: &str = "request";

/// Why a text is not a policy. The owner is to blame for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`MAX_POLICY_BYTES`].
    #[error("policy is too large: found {found} bytes, expected at most {MAX_POLICY_BYTES}")]
    TooLarge {
        /// Its length, bytes.
        found: usize,
    },
    /// More lines than [`MAX_LINES`].
    #[error("policy has too many lines: found {found}, expected at most {MAX_LINES}")]
    TooManyLines {
        /// How many.
        found: usize,
    },
    /// Brackets nest so that the parser would read more than [`MAX_REREADING`] characters once more.
    #[error(
        "policy's rules nest too deeply: their brackets make {found} characters or more to read again, expected at most {MAX_REREADING}"
    )]
    TooDeep {
        /// How many characters.
        found: u64,
    },
    /// More brackets than [`MAX_NESTING`] are one in another, or there are more minus signs than [`MAX_MINUS_SIGNS`].
    #[error(
        "policy's rules nest too deeply: expected at most {MAX_NESTING} brackets one in another and {MAX_MINUS_SIGNS} minus signs"
    )]
    TooNested,
    /// An expression has more operations one in another than [`MAX_DEPTH`].
    #[error(
        "policy's rules have an expression that is too long: expected at most {MAX_DEPTH} characters of operators in it\nhint: name its parts by rules of their own"
    )]
    TooLong,
    /// A query has more statements than [`MAX_STATEMENTS`].
    #[error(
        "policy's rules have a query of too many statements: expected at most {MAX_STATEMENTS}"
    )]
    TooManyStatements,
    /// A rule has more loops than [`MAX_LOOPS`].
    #[error(
        "policy's rules have one with too many loops: expected at most {MAX_LOOPS} of `x[y]` and `in` in a bracket that is in no other\nhint: make more rules of it"
    )]
    TooManyLoops,
    /// A function calls itself, by itself or by way of others.
    #[error(
        "policy's function {name} calls itself, by itself or by way of others, and would not end"
    )]
    Recursive {
        /// Its name.
        name: String,
    },
    /// More words outside of brackets than [`MAX_TOP_WORDS`].
    #[error("policy has too many rules: expected at most {MAX_TOP_WORDS} words in no bracket")]
    TooManyRules,
    /// Not Rego, or over the limit on columns.
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
    parts: Parts,
    /// Holds the rules that decide.
    deciding: Mutex<Loaded>,
    /// Holds all rules. Made at the first denial: most pods never have one, and the explanations are a third of a policy.
    explaining: OnceLock<Result<Mutex<Loaded>, PolicyError>>,
}

/// Rules in an engine, and which of them can be asked for.
#[derive(Clone)]
struct Loaded {
    engine: Engine,
    rules: BTreeSet<String>,
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
        check_size(text)?;
        let parts = Parts::of(text);
        let loaded = Loaded::of(&parts, parts.deciding())?;
        if !request_names().any(|name| loaded.rules.contains(name)) {
            return Err(PolicyError::NoRules);
        }
        Self::with(loaded, parts)
    }

    fn with(loaded: Loaded, parts: Parts) -> Result<Self, PolicyError> {
        let policy = Self { parts, deciding: Mutex::new(loaded), explaining: OnceLock::new() };
        policy.refuse_bypass()?;
        Ok(policy)
    }

    /// Compiles another text. Where its rules are the same and only the data behind them is another, the compiled rules
    /// are used again: for a generator that makes many policies.
    ///
    /// # Errors
    /// As [`Policy::compile`], with the same checks.
    pub fn compile_alike(&self, text: &str) -> Result<Self, PolicyError> {
        let fitting = Some(text).filter(|text| check_size(text).is_ok());
        let Some(parts) = fitting.and_then(|text| self.parts.of_alike(text)) else {
            return Self::compile(text);
        };
        let loaded = self.deciding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self::with(loaded, parts)
    }

    /// The data behind the rules, where it stands apart from them.
    pub(crate) fn own_data(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.parts.own_data()?).ok()
    }

    /// The same compiled rules with other data behind them.
    pub(crate) fn with_own_data(&self, data: serde_json::Value) -> Result<Self, PolicyError> {
        let loaded = self.deciding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self::with(loaded, self.parts.with_own_data(Value::from(data)))
    }

    /// Compiles the rules that explain denials, too, which [`Policy::compile`] leaves for the first denial.
    ///
    /// # Errors
    /// [`PolicyError::Rego`].
    pub fn check_explanations(&self) -> Result<(), PolicyError> {
        self.explaining().map(drop).map_err(Clone::clone)
    }

    /// Whether there are rules that only explain, and the first denial compiles them.
    pub fn has_explanations_apart(&self) -> bool {
        self.parts.explanations_at.is_some()
    }

    fn explaining(&self) -> Result<&Mutex<Loaded>, &PolicyError> {
        let whole = || Loaded::of(&self.parts, &self.parts.rules).map(Mutex::new);
        match self.parts.explanations_at {
            None => Ok(&self.deciding),
            Some(_) => self.explaining.get_or_init(whole).as_ref(),
        }
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
    /// its data never changes: the state and the policy's data come with the input, and the rules that ask put each where the
    /// policy looks for it. So an engine also serves every policy of the same rules, analysed once.
    pub(crate) fn evaluate(
        &self,
        rule: &str,
        state: &State,
        input: &Value,
    ) -> Result<Evaluated, String> {
        let loaded = match rule.starts_with(EXPLAIN_PREFIX) {
            true => self.explaining().map_err(text)?,
            false => &self.deciding,
        };
        // A panic while the lock was held leaves an engine that evaluates from scratch each time; it is still sound.
        let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if !loaded.rules.contains(rule) {
            return Ok(Evaluated { value: None, prints: Vec::new() });
        }
        let engine = &mut loaded.engine;
        engine.set_input(self.beside_state(input, state)?);
        let value = engine.eval_rule(format!("data.{ASKING}.{rule}"));
        let prints = engine.take_prints().unwrap_or_default();
        let value = value.map_err(text)?;
        Ok(Evaluated { value: Some(value).filter(|value| *value != Value::Undefined), prints })
    }

    /// The key whose debug grants count; `None` when the owner wants no debug sessions. A key that is none is as good as none: the
    /// generator refuses it.
    pub fn debug_key(&self) -> Option<OwnerKey> {
        let evaluated = self.evaluate(DEBUG_KEY, &State::new(), &Value::new_object()).ok()?;
        evaluated.value?.as_string().ok()?.parse().ok()
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

    /// The input that the query takes apart again.
    fn beside_state(&self, request: &Value, state: &State) -> Result<Value, String> {
        let document = state.document().as_object().map_err(text)?;
        let mut input = Value::new_object();
        let members = input.as_object_mut().map_err(text)?;
        for part in [PSTATE, GUEST] {
            let part = Value::from(part);
            let held = document.get(&part).cloned().unwrap_or_else(Value::new_object);
            members.insert(part, held);
        }
        if let Some(constants) = &self.parts.constants {
            members.insert(Value::from(CONSTANTS), constants.clone());
        }
        members.insert(Value::from(REQUEST), request.clone());
        Ok(input)
    }
}

/// The limits on the whole text, of which the engine sees only a part.
fn check_size(text: &str) -> Result<(), PolicyError> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge { found: text.len() });
    }
    match text.lines().count() {
        found if found > MAX_LINES => Err(PolicyError::TooManyLines { found }),
        _ => Ok(()),
    }
}

impl Loaded {
    /// These rules, a rule that stands for the data where that was taken out of the text, and the rules that ask.
    fn of(parts: &Parts, rules: &str) -> Result<Self, PolicyError> {
        check_brackets(rules)?;
        check_recursion(rules)?;
        let mut engine = new_engine();
        let package = engine.add_policy(SOURCE.to_owned(), parts.with_data(rules)).map_err(rego)?;
        if package.strip_prefix("data.") != Some(PACKAGE) {
            let found = package.trim_start_matches("data.").to_owned();
            return Err(PolicyError::Package { found });
        }
        let is_there =
            |name: &String| engine.has_declared_rule_rooted_at(SOURCE, name).unwrap_or(false);
        let rules: BTreeSet<String> = askable().filter(is_there).collect();
        engine.add_policy(ASKING.to_owned(), asking(&rules, parts)).map_err(rego)?;
        Ok(Self { engine, rules })
    }
}

/// Names of the rules that are ever asked for.
fn askable() -> impl Iterator<Item = String> {
    let decided = request_names().chain([RELEASE_KEY, DEBUG_EXEC]);
    decided
        .flat_map(|name| [name.to_owned(), format!("{EXPLAIN_PREFIX}{name}")])
        .chain([BYPASS, DATA, DEBUG_KEY].map(str::to_owned))
}

/// The rules that ask for those of the policy, with its state, its data and the request in their places.
fn asking(rules: &BTreeSet<String>, parts: &Parts) -> String {
    let constants = parts.constants.as_ref().map(|_| CONSTANTS);
    let places = [PSTATE, GUEST].into_iter().chain(constants);
    let places: String =
        places.map(|place| format!(" with data.{place} as input.{place}")).collect();
    let rule = |name: &String| {
        let asked = format!("data.{PACKAGE}.{name}{places} with input as input.{REQUEST}");
        format!("{name} := answer {{ answer := {asked} }}\n")
    };
    format!("package {ASKING}\n{}", rules.iter().map(rule).collect::<String>())
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
