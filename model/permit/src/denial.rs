//! Why a request is denied, for people and for machines.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diff;
use crate::engine::{EXPLAIN_PREFIX, Policy};
use crate::state::State;

/// Longest text of a denial, bytes.
pub const MAX_DENIAL_BYTES: usize = 2048;
/// Most reasons of a denial; the rest is counted.
const MAX_REASONS: usize = 8;
/// Longest value shown, bytes.
const MAX_VALUE_BYTES: usize = 160;

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
}

impl Denial {
    pub(crate) fn because(rule: &str, text: String) -> Self {
        let reason = Reason { text: cut(&text, 600), ..Reason::default() };
        Self { rule: rule.to_owned(), reasons: vec![reason] }
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
            return Self { rule: rule.to_owned(), reasons: explained };
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
    let show = |value: Value| cut(&value.to_string(), MAX_VALUE_BYTES);
    let mut reasons: Vec<Reason> = finished
        .into_iter()
        .map(|explanation| Reason {
            container: explanation.container,
            field: explanation.field,
            found: explanation.found.map(show),
            expected: explanation.expected.map(show),
            text: cut(&explanation.text, 300),
        })
        .collect();
    let nearest = candidates
        .iter()
        .filter_map(|candidate| {
            let differences = diff::differences(input, candidate.request.as_ref()?);
            (!differences.is_empty()).then_some((differences, &candidate.container))
        })
        .min_by_key(|(differences, _)| differences.len());
    if let Some((differences, container)) = nearest {
        reasons.extend(differences.into_iter().map(|difference| Reason {
            container: container.clone(),
            field: Some(difference.field),
            found: difference.found.map(|value| show(value.clone())),
            expected: difference.expected.map(|value| show(value.clone())),
            text: String::new(),
        }));
    }
    if let Some(more) = reasons.len().checked_sub(MAX_REASONS).filter(|more| *more > 0) {
        reasons.truncate(MAX_REASONS);
        reasons.push(Reason { text: format!("and {more} more"), ..Reason::default() });
    }
    reasons
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
        f.write_str(&cut(&text, MAX_DENIAL_BYTES))
    }
}

/// Cuts at a character boundary and says so.
fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub(4);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    format!("{} …", text.get(..end).unwrap_or_default())
}
