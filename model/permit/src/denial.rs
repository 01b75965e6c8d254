//! Why a request is denied, for people and for machines.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diff;
use crate::engine::{EXPLAIN_PREFIX, Policy};
use crate::secrets::Secrets;
use crate::state::State;

/// Longest denial, bytes: its text, and its JSON too.
pub const MAX_DENIAL_BYTES: usize = 2048;
/// Most reasons of a denial; the rest is counted.
const MAX_REASONS: usize = 8;
/// Longest value shown, bytes.
const MAX_VALUE_BYTES: usize = 160;
/// Longest field shown, bytes: its last step may be a key of the host's.
const MAX_FIELD_BYTES: usize = 200;
/// Longest reason in words, bytes.
const MAX_TEXT_BYTES: usize = 300;

/// A request that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Denial {
    /// The rule that denied: the request message's name.
    pub rule: String,
    /// Why, the most telling first; never empty.
    pub reasons: Vec<Reason>,
}

/// One reason. Absent parts do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// Name of the container that the request comes nearest to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// JSON pointer into the request's policy input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the request has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What the policy wants there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The reason in words, where a field does not say it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// One element of what an explaining rule returns: a finished reason, or a whole request to compare with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    #[serde(default)]
    container: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    found: Option<Value>,
    #[serde(default)]
    expected: Option<Value>,
    #[serde(default)]
    text: String,
    /// The request that the policy would allow for this container.
    #[serde(default)]
    request: Option<Value>,
    /// The request at hand in the form in which the policy compares it; without it the policy input.
    #[serde(default)]
    input: Option<Value>,
    /// Names of the variables in it whose values are not shown.
    #[serde(default)]
    secrets: Vec<String>,
}

impl Denial {
    pub(crate) fn because(rule: &str, text: String) -> Self {
        let reason = Reason { text: cut(&text, 2 * MAX_TEXT_BYTES), ..Reason::default() };
        Self { rule: rule.to_owned(), reasons: vec![reason] }
    }

    /// Only as many reasons as fit; the rest is counted.
    fn of(rule: &str, mut reasons: Vec<Reason>) -> Self {
        let all = reasons.len();
        reasons.truncate(MAX_REASONS);
        loop {
            let mut shown = reasons.clone();
            if let Some(more) = all.checked_sub(reasons.len()).filter(|more| *more > 0) {
                shown.push(Reason { text: format!("and {more} more"), ..Reason::default() });
            }
            let denial = Self { rule: rule.to_owned(), reasons: shown };
            let bytes = serde_json::to_string(&denial).map_or(usize::MAX, |json| json.len());
            if bytes <= MAX_DENIAL_BYTES || reasons.pop().is_none() {
                return denial;
            }
        }
    }

    /// Asks the policy's explaining rule; falls back to what the rule printed.
    pub(crate) fn explained(
        policy: &Policy,
        state: &State,
        rule: &str,
        input: &regorus::Value,
        prints: &[String],
    ) -> Self {
        let explained = policy
            .evaluate(&format!("{EXPLAIN_PREFIX}{rule}"), state, input)
            .ok()
            .and_then(|evaluated| evaluated.value)
            .and_then(|value| serde_json::to_value(value).ok())
            .and_then(|value| serde_json::from_value::<Vec<Explanation>>(value).ok())
            .map(|explanations| {
                reasons(explanations, &serde_json::to_value(input).unwrap_or_default())
            })
            .unwrap_or_default();
        if !explained.is_empty() {
            return Self::of(rule, explained);
        }
        let text = match prints {
            [] => "the policy does not allow it".to_owned(),
            prints => prints.join("; "),
        };
        Self::because(rule, text)
    }
}

/// Finished reasons first, then how the request differs from the one it is nearest to.
fn reasons(explanations: Vec<Explanation>, input: &Value) -> Vec<Reason> {
    let (candidates, finished): (Vec<_>, Vec<_>) =
        explanations.into_iter().partition(|explanation| explanation.request.is_some());
    let mut reasons: Vec<Reason> = finished
        .into_iter()
        .map(|explanation| Reason {
            container: explanation.container,
            field: explanation.field.map(|field| cut(&field, MAX_FIELD_BYTES)),
            found: explanation.found.as_ref().map(show),
            expected: explanation.expected.as_ref().map(show),
            text: cut(&explanation.text, MAX_TEXT_BYTES),
        })
        .collect();
    let nearest = candidates
        .iter()
        .filter_map(|candidate| {
            let expected = candidate.request.as_ref()?;
            let found = candidate.input.as_ref().unwrap_or(input);
            let differences = diff::differences(found, expected);
            let secrets = Secrets::of(&candidate.secrets, expected);
            (!differences.is_empty()).then_some((differences, &candidate.container, secrets))
        })
        .min_by_key(|(differences, ..)| differences.len());
    if let Some((differences, container, secrets)) = nearest {
        let differ = differences.iter().map(|difference| differing(difference, &secrets));
        reasons.extend(differ.map(|reason| Reason { container: container.clone(), ..reason }));
    }
    reasons
}

/// One difference; of a secret's value only that it differs.
fn differing(difference: &diff::Difference<'_>, secrets: &Secrets) -> Reason {
    let masked = |value: Option<&Value>| value.map(|value| secrets.mask(value));
    let (found, expected) = (masked(difference.found), masked(difference.expected));
    let text = match found == expected {
        true => "the values differ; they come from a Secret and are not shown",
        false => "",
    };
    Reason {
        container: None,
        field: Some(cut(&difference.field, MAX_FIELD_BYTES)),
        found: found.as_ref().map(show),
        expected: expected.as_ref().map(show),
        text: text.to_owned(),
    }
}

fn show(value: &Value) -> String {
    cut(&value.to_string(), MAX_VALUE_BYTES)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(container) = &self.container {
            write!(f, "container {container}")?;
            separator = ": ";
        }
        if let Some(field) = &self.field {
            write!(f, "{separator}{field}: ")?;
            let found = self.found.as_deref().unwrap_or("nothing");
            let expected = self.expected.as_deref().unwrap_or("nothing");
            write!(f, "found {found}, expected {expected}")?;
            separator = "; ";
        }
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, "{separator}{text}"),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{} denied by the policy", self.rule);
        for reason in &self.reasons {
            text.push_str(&format!("\n  {reason}"));
        }
        f.write_str(&cut_at(&text, MAX_DENIAL_BYTES))
    }
}

/// One line without control characters, which are the host's and could forge lines of a log.
fn cut(text: &str, max_bytes: usize) -> String {
    let plain = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    cut_at(&text.chars().map(plain).collect::<String>(), max_bytes)
}

/// Cuts at a character boundary and says so.
fn cut_at(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub(4);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    format!("{} …", text.get(..end).unwrap_or_default())
}
