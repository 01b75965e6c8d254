//! The one decision.

use std::ops::Deref;

use ah_agent_api::PolicyRequest;
use ah_agent_api::agent::ExecProcessRequest;
use regorus::Value;

use crate::debug::DebugChange;
use crate::denial::Denial;
use crate::engine::{DEBUG_EXEC, Evaluated, Policy, RELEASE_KEY};
use crate::ops;
use crate::state::{Changes, State};

/// A request that the policy allows. Only [`decide`] and [`crate::decide_exec`] make one; a handler takes it instead of the request.
#[derive(Debug)]
pub struct Permit<R> {
    request: R,
    changes: Changes,
    repeat: bool,
}

impl<R> Permit<R> {
    /// The state changes, to be committed after the effect.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether this is the retry of a request that was already carried out: it is answered as the first one was, and
    /// has no effect of its own.
    pub fn is_repeat(&self) -> bool {
        self.repeat
    }

    /// Gives the request and the changes to the handler.
    pub fn into_parts(self) -> (R, Changes) {
        (self.request, self.changes)
    }

    /// The same permission for a part of the request, such as the message in an enum's variant.
    pub fn map<T>(self, part: impl FnOnce(R) -> T) -> Permit<T> {
        Permit { request: part(self.request), changes: self.changes, repeat: self.repeat }
    }
}

impl<R> Deref for Permit<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

/// What a rule returns.
struct Outcome {
    allowed: bool,
    ops: Option<Value>,
    repeat: bool,
}

impl Outcome {
    /// A boolean, or an object of `allowed` and perhaps `ops` and `repeat`, of nothing else.
    fn read(value: &Value) -> Result<Self, &'static str> {
        if let Value::Bool(allowed) = value {
            return Ok(Self { allowed: *allowed, ops: None, repeat: false });
        }
        let members = value.as_object().map_err(|_| "neither a boolean nor an object")?;
        let (mut allowed, mut ops, mut repeat) = (None, None, false);
        for (key, value) in members.iter() {
            let name = key.as_string().map_err(|_| "a key that is no text")?;
            match (name.as_ref(), value) {
                ("allowed", Value::Bool(value)) => allowed = Some(*value),
                ("repeat", Value::Bool(value)) => repeat = *value,
                ("ops", Value::Null) => {}
                ("ops", value) => ops = Some(value.clone()),
                _ => return Err("an unknown key, or a value of another type"),
            }
        }
        let allowed = allowed.ok_or("no \"allowed\"")?;
        Ok(Self { allowed, ops, repeat })
    }
}

/// Decides a request: evaluates the rule named like its message with the request as input and the state as data.
///
/// # Errors
/// [`Denial`] unless the rule says `true` or `{"allowed": true, ...}` with operations that apply to the state.
pub fn decide<R: PolicyRequest>(
    policy: &Policy,
    state: &State,
    request: R,
) -> Result<Permit<R>, Denial> {
    let rule = request.rule_name();
    let input = input_of(rule, &request)?;
    let (changes, repeat) = decide_input(policy, state, rule, &input)?;
    Ok(Permit { request, changes, repeat })
}

/// Decides the exec of a verified debug grant: by a rule of its own, which sees what the grant says.
pub(crate) fn decide_granted(
    policy: &Policy,
    state: &State,
    seen: &State,
    request: ExecProcessRequest,
    change: DebugChange,
) -> Result<Permit<ExecProcessRequest>, Denial> {
    let rule = request.rule_name();
    let input = input_of(rule, &request)?;
    let said = |evaluated: &Evaluated| match &evaluated.value {
        Some(_) => Denial::because(rule, NOT_GRANTED.to_owned()),
        None => Denial::because(rule, "the policy has no rule for debug sessions".to_owned()),
    };
    let evaluated = evaluate(policy, seen, DEBUG_EXEC, &input)?;
    let (changes, repeat) = applied(state, rule, &evaluated, &said)?;
    match repeat || changes.is_empty() {
        true => Err(Denial::because(rule, "a debug exec repeats or changes nothing".to_owned())),
        false => Ok(Permit { request, changes: changes.with_debug(change), repeat }),
    }
}

/// What a rule cannot say of itself: the grant's words and terminal were compared before.
const NOT_GRANTED: &str = "debug session: the container is not the granted one or not started, the whole pod is awaited, \
     the exec id was used before, or the process has more than its arguments and terminal otherwise than its container";

fn input_of(rule: &str, request: &impl PolicyRequest) -> Result<Value, Denial> {
    let input = request
        .to_input()
        .map_err(|err| Denial::because(rule, format!("the request has no policy input: {err}")))?;
    // A value that the engine cannot hold becomes its undefined one; no rule gets to see that.
    match Value::from(input) {
        Value::Undefined => Err(Denial::because(rule, "the policy input is malformed".to_owned())),
        input => Ok(input),
    }
}

/// Decides whether a container that asks for a key may have it as things stand: the owner may want every declared
/// container first. Which keys there are is the key service's to decide.
///
/// # Errors
/// [`Denial`] unless the policy has the rule `ReleaseKeyRequest` and it says `true`.
pub fn may_release_keys(policy: &Policy, state: &State) -> Result<(), Denial> {
    decide_input(policy, state, RELEASE_KEY, &Value::new_object()).map(drop)
}

fn decide_input(
    policy: &Policy,
    state: &State,
    rule: &'static str,
    input: &Value,
) -> Result<(Changes, bool), Denial> {
    let evaluated = evaluate(policy, state, rule, input)?;
    applied(state, rule, &evaluated, &|evaluated: &Evaluated| {
        Denial::explained(policy, state, rule, input, &evaluated.prints)
    })
}

fn evaluate(policy: &Policy, seen: &State, rule: &str, input: &Value) -> Result<Evaluated, Denial> {
    let failed = |err| Denial::because(rule, format!("the rule failed: {err}"));
    policy.evaluate(rule, seen, input).map_err(failed)
}

/// What a rule's result does to the state; `denied` says why where it does not allow.
fn applied(
    state: &State,
    rule: &str,
    evaluated: &Evaluated,
    denied: &dyn Fn(&Evaluated) -> Denial,
) -> Result<(Changes, bool), Denial> {
    let Some(value) = &evaluated.value else { return Err(denied(evaluated)) };
    let outcome = Outcome::read(value).map_err(|detail| {
        Denial::because(rule, format!("the rule's result is malformed: {detail}"))
    })?;
    if !outcome.allowed {
        return Err(denied(evaluated));
    }
    let changes = match &outcome.ops {
        None => state.unchanged(),
        Some(ops) => ops::apply(state, ops).map_err(|text| Denial::because(rule, text))?,
    };
    if outcome.repeat && !changes.is_empty() {
        return Err(Denial::because(rule, "the rule's result repeats and changes".to_owned()));
    }
    Ok((changes, outcome.repeat))
}
