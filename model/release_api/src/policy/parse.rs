//! Policy text to policy and back.

use serde_json::Value;

use super::wire::{self, AuthorityWire, ConditionWire, OLDER_VERSION, PolicyWire, VERSION};
use super::{Authority, Condition, Operator, Operators, ReleasePolicy, Scalar};

/// Longest policy text, bytes.
const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Most comparisons and groups in one policy.
const MAX_CONDITIONS: usize = 256;
/// Deepest nesting of groups.
const MAX_DEPTH: usize = 8;

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
        "release policy: {at}: expected {{\"claim\", \"equals\"}} or one of \"allOf\", \"anyOf\", and nothing beside it"
    )]
    Shape {
        /// Path of the condition.
        at: String,
    },
    /// No version, and not the preview form, which is the only one without.
    #[error(
        "release policy: {at}: missing 'version' property: without one, a comparison is {{\"claim\", \"condition\", \"value\"}}\nhint: add \"version\": \"{VERSION}\""
    )]
    MissingVersion {
        /// Path of the first condition of a later form.
        at: String,
    },
    /// An operator of the grammar that has to be allowed first.
    #[error(
        "release policy: {at}: operator {found:?} is not allowed here, expected \"equals\"\nhint: other vaults know \"equals\" alone; a vault of this kind has an option that allows all operators"
    )]
    Operator {
        /// Path of the condition.
        at: String,
        /// The operator found.
        found: String,
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
    /// A value that the operator cannot compare with.
    #[error("release policy: {at}: \"{operator}\" is {found}, expected {expected}")]
    Value {
        /// Path of the condition.
        at: String,
        /// The operator.
        operator: Operator,
        /// What it can be given.
        expected: &'static str,
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

/// How a text is read: which form it has, which operators it may use, how many conditions it may still have.
struct Reader {
    preview: bool,
    operators: Operators,
    budget: usize,
}

impl ReleasePolicy {
    /// Reads a policy whose only operator is `equals`.
    ///
    /// # Errors
    /// [`PolicyError`] with the path of the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Self::parse_with(text, Operators::EqualsOnly)
    }

    /// Reads a policy that may use `operators`.
    ///
    /// # Errors
    /// [`PolicyError`] with the path of the part that is wrong.
    pub fn parse_with(text: &str, operators: Operators) -> Result<Self, PolicyError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(PolicyError::TooLong { found: text.len() });
        }
        let wire = wire::read(text).map_err(PolicyError::Json)?;
        let preview = match wire.version {
            None => true,
            Some(version) if version == VERSION || version == OLDER_VERSION => false,
            Some(found) => return Err(PolicyError::Version { found }),
        };
        if wire.any_of.is_empty() {
            return Err(PolicyError::EmptyList { at: "anyOf".into() });
        }
        let mut reader = Reader { preview, operators, budget: MAX_CONDITIONS };
        let authorities = wire.any_of.into_iter().enumerate();
        let any_of = authorities
            .map(|(index, authority)| reader.authority(authority, &format!("anyOf[{index}]")))
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
            version: Some(VERSION.into()),
            any_of: self.any_of.iter().map(write_authority).collect(),
        }
    }
}

impl Reader {
    fn authority(&mut self, wire: AuthorityWire, at: &str) -> Result<Authority, PolicyError> {
        if wire.authority.strip_prefix("https://").is_none_or(str::is_empty) {
            return Err(PolicyError::Authority { at: at.into(), found: wire.authority });
        }
        let condition =
            ConditionWire { all_of: wire.all_of, any_of: wire.any_of, ..ConditionWire::default() };
        Ok(Authority { name: wire.authority, condition: self.condition(condition, at, 0)? })
    }

    fn condition(
        &mut self,
        mut wire: ConditionWire,
        at: &str,
        depth: usize,
    ) -> Result<Condition, PolicyError> {
        self.budget = self.budget.checked_sub(1).ok_or(PolicyError::TooLarge)?;
        let comparison = self.operator(&mut wire, at)?;
        match (wire.claim, comparison, wire.all_of, wire.any_of) {
            (Some(claim), Some((operator, value)), None, None) => {
                self.comparison(claim, operator, value, at)
            }
            (None, None, Some(list), None) => {
                self.list(list, &format!("{at}.allOf"), depth).map(Condition::AllOf)
            }
            (None, None, None, Some(list)) => {
                self.list(list, &format!("{at}.anyOf"), depth).map(Condition::AnyOf)
            }
            _ => Err(PolicyError::Shape { at: at.into() }),
        }
    }

    /// The operator and value of a comparison in the form that is being read; `None` for a group.
    fn operator(
        &self,
        wire: &mut ConditionWire,
        at: &str,
    ) -> Result<Option<(Operator, Value)>, PolicyError> {
        let shape = || PolicyError::Shape { at: at.into() };
        let mut named = wire.take_operators();
        let old = (wire.condition.take(), wire.value.take());
        match (self.preview, named.pop(), old) {
            (true, Some(_), _) => Err(PolicyError::MissingVersion { at: at.into() }),
            (true, None, (Some(name), Some(value))) => {
                let operator = Operator::ALL.into_iter().find(|operator| operator.name() == name);
                match operator {
                    Some(operator) => Ok(Some((operator, value))),
                    None => Err(PolicyError::Operator { at: at.into(), found: name }),
                }
            }
            (false, comparison, (None, None)) if named.is_empty() => Ok(comparison),
            (true, None, (None, None)) => Ok(None),
            _ => Err(shape()),
        }
    }

    fn comparison(
        &self,
        claim: String,
        operator: Operator,
        found: Value,
        at: &str,
    ) -> Result<Condition, PolicyError> {
        let at = || at.to_owned();
        if self.operators == Operators::EqualsOnly && !operator.is_equals() {
            return Err(PolicyError::Operator { at: at(), found: operator.name().into() });
        }
        if claim.split('.').any(str::is_empty) {
            return Err(PolicyError::Claim { at: at(), found: claim });
        }
        let scalar = Scalar::of(&found);
        let expected = match &scalar {
            Some(value) => operator.wants(value),
            None => Some("a string, true, false or a whole number"),
        };
        match (scalar, expected) {
            (Some(value), None) => Ok(Condition::Compare { claim, operator, value }),
            (_, expected) => {
                let expected = expected.unwrap_or_default();
                Err(PolicyError::Value { at: at(), operator, expected, found })
            }
        }
    }

    fn list(
        &mut self,
        list: Vec<ConditionWire>,
        at: &str,
        depth: usize,
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
            .map(|(index, condition)| self.condition(condition, &format!("{at}[{index}]"), depth))
            .collect()
    }
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
        Condition::Compare { claim, operator, value } => {
            ConditionWire::comparison(claim, *operator, serde_json::to_value(value).ok())
        }
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
