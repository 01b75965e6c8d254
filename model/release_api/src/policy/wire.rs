//! The JSON shapes of the three forms of the grammar, and the one repair that a form allows.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Operator;

/// The version of the grammar that is written; [`OLDER_VERSION`] differs from it in nothing else.
pub(super) const VERSION: &str = "1.0.0";
/// What older set-up scripts write, one of them with a comma behind the last member.
pub(super) const OLDER_VERSION: &str = "0.2";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyWire {
    /// Missing in the preview form.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(rename = "anyOf")]
    pub(super) any_of: Vec<AuthorityWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorityWire {
    pub(super) authority: String,
    #[serde(rename = "allOf", default, skip_serializing_if = "Option::is_none")]
    pub(super) all_of: Option<Vec<ConditionWire>>,
    #[serde(rename = "anyOf", default, skip_serializing_if = "Option::is_none")]
    pub(super) any_of: Option<Vec<ConditionWire>>,
}

/// A comparison in either form, or a group.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct ConditionWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) equals: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_equals: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) less: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) less_or_equals: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) greater: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) greater_or_equals: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exists: Option<Value>,
    /// Preview form: the operator's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) condition: Option<String>,
    /// Preview form: what it compares with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) all_of: Option<Vec<ConditionWire>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) any_of: Option<Vec<ConditionWire>>,
}

impl ConditionWire {
    fn slot(&mut self, operator: Operator) -> &mut Option<Value> {
        match operator {
            Operator::Equals => &mut self.equals,
            Operator::NotEquals => &mut self.not_equals,
            Operator::Less => &mut self.less,
            Operator::LessOrEquals => &mut self.less_or_equals,
            Operator::Greater => &mut self.greater,
            Operator::GreaterOrEquals => &mut self.greater_or_equals,
            Operator::Exists => &mut self.exists,
        }
    }

    /// A comparison of version 1.0.0.
    pub(super) fn comparison(claim: &str, operator: Operator, value: Option<Value>) -> Self {
        let mut wire = Self { claim: Some(claim.to_owned()), ..Self::default() };
        *wire.slot(operator) = value;
        wire
    }

    /// The operators of this condition with what they compare with, taken out of it.
    pub(super) fn take_operators(&mut self) -> Vec<(Operator, Value)> {
        Operator::ALL
            .into_iter()
            .filter_map(|operator| Some((operator, self.slot(operator).take()?)))
            .collect()
    }
}

/// A text that is there: `null` stands for no version, and for no member either.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Reads the JSON. Commas behind a last member are forgiven where the rest says version 0.2, for such scripts exist.
pub(super) fn read(text: &str) -> Result<PolicyWire, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        match serde_json::from_str::<PolicyWire>(&without_trailing_commas(text)) {
            Ok(wire) if wire.version.as_deref() == Some(OLDER_VERSION) => Ok(wire),
            _ => Err(error),
        }
    })
}

/// `text` without the commas, outside of strings, that a closing bracket follows.
fn without_trailing_commas(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        let closes = |rest: &str| rest.trim_start().starts_with([']', '}']);
        let rest = text.get(at.saturating_add(c.len_utf8())..).unwrap_or_default();
        if c == ',' && !in_string && closes(rest) {
            continue;
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = c == '\\' && in_string && !escaped;
        kept.push(c);
    }
    kept
}
