//! Policy text to policy and back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Authority, Condition, ReleasePolicy, Scalar};

/// Longest policy text, bytes.
const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Most comparisons and groups in one policy.
const MAX_CONDITIONS: usize = 256;
/// Deepest nesting of groups.
const MAX_DEPTH: usize = 8;
/// The version of the grammar that is written; [`OLDER_VERSION`] differs from it in nothing else.
const VERSION: &str = "1.0.0";
/// What older set-up scripts write.
const OLDER_VERSION: &str = "0.2";

/// Why a text is not a release policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Too long.
    #[error("release policy has {found} bytes, expected at most {MAX_TEXT_BYTES}")]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// Not JSON of the grammar's shape.
    #[error("release policy is not JSON of the grammar {VERSION}")]
    Json(#[source] serde_json::Error),
    /// Another version of the grammar.
    #[error("release policy has version {found:?}, expected {VERSION:?}")]
    Version {
        /// The version found.
        found: String,
    },
    /// A condition that is neither a comparison nor exactly one group.
    #[error(
        "release policy: {at}: expected {{\"claim\", \"equals\"}} or one of \"allOf\", \"anyOf\""
    )]
    Shape {
        /// Path of the condition.
        at: String,
    },
    /// A list without members: `allOf` of nothing is met by any evidence.
    #[error("release policy: {at}: list is empty, expected at least one condition")]
    EmptyList {
        /// Path of the list.
        at: String,
    },
    /// An authority without a name or with a scheme other than https.
    #[error("release policy: {at}: authority {found:?} is not an https URL")]
    Authority {
        /// Path of the authority.
        at: String,
        /// What was found.
        found: String,
    },
    /// A claim name that is empty or has an empty part.
    #[error("release policy: {at}: claim {found:?} has an empty part")]
    Claim {
        /// Path of the condition.
        at: String,
        /// The name found.
        found: String,
    },
    /// A value that `equals` cannot compare.
    #[error(
        "release policy: {at}: \"equals\" is {found}, expected a string, true, false or a whole number"
    )]
    Value {
        /// Path of the condition.
        at: String,
        /// The value found.
        found: Value,
    },
    /// More conditions than fit.
    #[error("release policy has over {MAX_CONDITIONS} conditions or nests over {MAX_DEPTH} deep")]
    TooLarge,
    /// Facts from which no policy can be made.
    #[error(
        "release policy cannot be derived: no launch measurement is given, so no guest could be allowed"
    )]
    NoMeasurement,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyWire {
    version: String,
    #[serde(rename = "anyOf")]
    any_of: Vec<AuthorityWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityWire {
    authority: String,
    #[serde(rename = "allOf", default, skip_serializing_if = "Option::is_none")]
    all_of: Option<Vec<ConditionWire>>,
    #[serde(rename = "anyOf", default, skip_serializing_if = "Option::is_none")]
    any_of: Option<Vec<ConditionWire>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<Value>,
    #[serde(rename = "allOf", default, skip_serializing_if = "Option::is_none")]
    all_of: Option<Vec<ConditionWire>>,
    #[serde(rename = "anyOf", default, skip_serializing_if = "Option::is_none")]
    any_of: Option<Vec<ConditionWire>>,
}

impl ReleasePolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`] with the path of the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(PolicyError::TooLong { found: text.len() });
        }
        let wire: PolicyWire = serde_json::from_str(text).map_err(PolicyError::Json)?;
        if wire.version != VERSION && wire.version != OLDER_VERSION {
            return Err(PolicyError::Version { found: wire.version });
        }
        if wire.any_of.is_empty() {
            return Err(PolicyError::EmptyList { at: "anyOf".into() });
        }
        let mut budget = MAX_CONDITIONS;
        let any_of = wire
            .any_of
            .into_iter()
            .enumerate()
            .map(|(index, authority)| {
                read_authority(authority, &format!("anyOf[{index}]"), &mut budget)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { any_of })
    }

    /// The policy as JSON of version 1.0.0: equal policies give equal bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.wire()).unwrap_or_default()
    }

    /// The policy as JSON for people.
    pub fn to_json_pretty(&self) -> String {
        serde_json::to_string_pretty(&self.wire()).unwrap_or_default()
    }

    fn wire(&self) -> PolicyWire {
        PolicyWire {
            version: VERSION.into(),
            any_of: self.any_of.iter().map(write_authority).collect(),
        }
    }
}

fn read_authority(
    wire: AuthorityWire,
    at: &str,
    budget: &mut usize,
) -> Result<Authority, PolicyError> {
    if wire.authority.strip_prefix("https://").is_none_or(str::is_empty) {
        return Err(PolicyError::Authority { at: at.into(), found: wire.authority });
    }
    let condition =
        ConditionWire { all_of: wire.all_of, any_of: wire.any_of, ..ConditionWire::default() };
    Ok(Authority { name: wire.authority, condition: read_condition(condition, at, 0, budget)? })
}

fn read_condition(
    wire: ConditionWire,
    at: &str,
    depth: usize,
    budget: &mut usize,
) -> Result<Condition, PolicyError> {
    *budget = budget.checked_sub(1).ok_or(PolicyError::TooLarge)?;
    match (wire.claim, wire.equals, wire.all_of, wire.any_of) {
        (Some(claim), Some(value), None, None) => read_equals(claim, value, at),
        (None, None, Some(list), None) => {
            read_list(list, &format!("{at}.allOf"), depth, budget).map(Condition::AllOf)
        }
        (None, None, None, Some(list)) => {
            read_list(list, &format!("{at}.anyOf"), depth, budget).map(Condition::AnyOf)
        }
        _ => Err(PolicyError::Shape { at: at.into() }),
    }
}

fn read_equals(claim: String, value: Value, at: &str) -> Result<Condition, PolicyError> {
    if claim.split('.').any(str::is_empty) {
        return Err(PolicyError::Claim { at: at.into(), found: claim });
    }
    match Scalar::of(&value) {
        Some(value) => Ok(Condition::Equals { claim, value }),
        None => Err(PolicyError::Value { at: at.into(), found: value }),
    }
}

fn read_list(
    list: Vec<ConditionWire>,
    at: &str,
    depth: usize,
    budget: &mut usize,
) -> Result<Vec<Condition>, PolicyError> {
    if list.is_empty() {
        return Err(PolicyError::EmptyList { at: at.into() });
    }
    let depth = depth.saturating_add(1);
    if depth > MAX_DEPTH {
        return Err(PolicyError::TooLarge);
    }
    list.into_iter()
        .enumerate()
        .map(|(index, condition)| {
            read_condition(condition, &format!("{at}[{index}]"), depth, budget)
        })
        .collect()
}

fn write_authority(authority: &Authority) -> AuthorityWire {
    let condition = write_condition(&authority.condition);
    AuthorityWire {
        authority: authority.name.clone(),
        all_of: condition.all_of,
        any_of: condition.any_of,
    }
}

fn write_condition(condition: &Condition) -> ConditionWire {
    match condition {
        Condition::Equals { claim, value } => ConditionWire {
            claim: Some(claim.clone()),
            equals: serde_json::to_value(value).ok(),
            ..ConditionWire::default()
        },
        Condition::AllOf(list) => ConditionWire {
            all_of: Some(list.iter().map(write_condition).collect()),
            ..ConditionWire::default()
        },
        Condition::AnyOf(list) => ConditionWire {
            any_of: Some(list.iter().map(write_condition).collect()),
            ..ConditionWire::default()
        },
    }
}
