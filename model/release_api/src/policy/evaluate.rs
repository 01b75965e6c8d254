//! Policy and claims to a decision that says which claims were met and which were not.

use serde_json::{Map, Value};

use super::{Authority, Condition, Operator, ReleasePolicy, Scalar};

/// What an authority states about evidence that it verified.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Adds a claim; a name given twice keeps the later value.
    pub fn insert(&mut self, name: &str, value: impl Into<Scalar>) {
        let value = match value.into() {
            Scalar::Text(text) => Value::String(text),
            Scalar::Bool(truth) => Value::Bool(truth),
            Scalar::Number(number) => Value::Number(number.into()),
        };
        self.0.insert(name.to_owned(), value);
    }

    /// Claims as another authority gives them, objects and all.
    pub fn from_json(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// The claims as a JSON object, for the decision log.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The claims as a JSON object.
    pub fn into_json(self) -> Map<String, Value> {
        self.0
    }

    /// The value at `path`, where a dot walks into an object; `None` when it is missing or not a text, truth value or whole number.
    pub fn find(&self, path: &str) -> Option<Scalar> {
        Scalar::of(self.walk(path)?)
    }

    /// Whether there is anything at `path`; `null` is nothing.
    fn has(&self, path: &str) -> bool {
        self.walk(path).is_some_and(|value| !value.is_null())
    }

    fn walk(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_object()?.get(part))
    }
}

/// One comparison of a policy with the claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionResult {
    /// The claim, as the policy names it.
    pub claim: String,
    /// How the policy compares it.
    pub operator: Operator,
    /// Its value; `None` when the claim is missing, or is an object or a list.
    pub found: Option<Scalar>,
    /// The value that the policy compares it with.
    pub expected: Scalar,
}

impl std::fmt::Display for ConditionResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { claim, operator, found, expected } = self;
        write!(f, "{claim}: ")?;
        match found {
            Some(found) => write!(f, "found {found}")?,
            None => f.write_str("missing")?,
        }
        write!(f, ", expected {}{expected}", operator.words())
    }
}

/// What a policy says about claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Every condition that one alternative of the policy makes is met; these are the comparisons it rests on.
    Met(Vec<ConditionResult>),
    /// No alternative is met; these comparisons failed.
    NotMet(Vec<ConditionResult>),
    /// No alternative of the policy trusts the authority that the claims come from.
    OtherAuthority {
        /// Who made the claims.
        found: String,
        /// Whom the policy trusts.
        expected: Vec<String>,
    },
}

impl ReleasePolicy {
    /// Decides on `claims` made by `authority`.
    pub fn evaluate(&self, authority: &str, claims: &Claims) -> Decision {
        let trusted: Vec<&Authority> =
            self.any_of.iter().filter(|entry| same_authority(&entry.name, authority)).collect();
        if trusted.is_empty() {
            let expected = self.any_of.iter().map(|entry| entry.name.clone()).collect();
            return Decision::OtherAuthority { found: authority.to_owned(), expected };
        }
        let mut failed = Vec::new();
        for entry in trusted {
            match evaluate(&entry.condition, claims) {
                Ok(met) => return Decision::Met(met),
                Err(mut unmet) => failed.append(&mut unmet),
            }
        }
        Decision::NotMet(failed)
    }
}

/// Authorities are written with and without a slash at the end.
fn same_authority(a: &str, b: &str) -> bool {
    a.strip_suffix('/').unwrap_or(a) == b.strip_suffix('/').unwrap_or(b)
}

/// The comparisons that make the condition met, or those that make it fail; neither list is ever empty.
fn evaluate(
    condition: &Condition,
    claims: &Claims,
) -> Result<Vec<ConditionResult>, Vec<ConditionResult>> {
    match condition {
        Condition::Compare { claim, operator, value } => {
            let found = claims.find(claim);
            let met = operator.holds(claims.has(claim), found.as_ref(), value);
            let (claim, expected) = (claim.clone(), value.clone());
            let result = vec![ConditionResult { claim, operator: *operator, found, expected }];
            if met { Ok(result) } else { Err(result) }
        }
        Condition::AllOf(list) => {
            let (mut met, mut failed) = (Vec::new(), Vec::new());
            for condition in list {
                match evaluate(condition, claims) {
                    Ok(mut results) => met.append(&mut results),
                    Err(mut results) => failed.append(&mut results),
                }
            }
            if failed.is_empty() && !met.is_empty() { Ok(met) } else { Err(failed) }
        }
        Condition::AnyOf(list) => {
            let mut failed = Vec::new();
            for condition in list {
                match evaluate(condition, claims) {
                    Ok(results) => return Ok(results),
                    Err(mut results) => failed.append(&mut results),
                }
            }
            Err(failed)
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
