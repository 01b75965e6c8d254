//! The one decision.

use std::ops::Deref;

use ah_agent_api::PolicyRequest;
use serde::Deserialize;
use serde_json::Value;

use crate::denial::Denial;
use crate::engine::Policy;
use crate::ops;
use crate::state::{Changes, State};

/// A request that the policy allows. Only [`decide`] makes one; a handler takes it instead of the request.
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

/// What a rule returns when it is not a plain boolean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    allowed: bool,
    #[serde(default)]
    ops: Option<Value>,
    #[serde(default)]
    repeat: bool,
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
    let input = request
        .to_input()
        .map_err(|err| Denial::because(rule, format!("the request has no policy input: {err}")))?;
    let (changes, repeat) = decide_input(policy, state, rule, &input)?;
    Ok(Permit { request, changes, repeat })
}

fn decide_input(
    policy: &Policy,
    state: &State,
    rule: &'static str,
    input: &Value,
) -> Result<(Changes, bool), Denial> {
    let evaluated = policy
        .evaluate(rule, state, input)
        .map_err(|err| Denial::because(rule, format!("the rule failed: {err}")))?;
    let value = match evaluated.value {
        Some(value) => value,
        None => return Err(Denial::explained(policy, state, rule, input, &evaluated.prints)),
    };
    let outcome = match value {
        Value::Bool(allowed) => Outcome { allowed, ops: None, repeat: false },
        // serde would read a list as a struct's fields in their order, so `[true]` must not get that far.
        value @ Value::Object(_) => {
            Outcome::deserialize(value).map_err(|err| malformed(rule, &err))?
        }
        _ => return Err(malformed(rule, &"neither a boolean nor an object")),
    };
    if !outcome.allowed {
        return Err(Denial::explained(policy, state, rule, input, &evaluated.prints));
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

fn malformed(rule: &str, detail: &dyn std::fmt::Display) -> Denial {
    Denial::because(rule, format!("the rule's result is malformed: {detail}"))
}
