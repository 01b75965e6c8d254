//! Policy and claims to a decision that says which claims were met and which were not.

use serde_json::{Map, Value};

use super::{Authority, Condition, ReleasePolicy, Scalar};

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

    /// The value at `path`, where a dot walks into an object; `None` when it is missing or not a text, truth value or whole number.
    pub fn find(&self, path: &str) -> Option<Scalar> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        Scalar::of(parts.try_fold(first, |value, part| value.as_object()?.get(part))?)
    }
}

/// One comparison of a policy with the claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionResult {
    /// The claim, as the policy names it.
    pub claim: String,
    /// Its value; `None` when the claim is missing.
    pub found: Option<Scalar>,
    /// The value that the policy asks for.
    pub expected: Scalar,
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
        Condition::Equals { claim, value } => {
            let found = claims.find(claim);
            let met = found.as_ref().is_some_and(|found| found.same_text(value));
            let result =
                vec![ConditionResult { claim: claim.clone(), found, expected: value.clone() }];
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
