//! The operators of the grammar, and what each means for claims that are text, truth values or whole numbers.

use serde::{Deserialize, Serialize};

use super::Scalar;

/// How a claim is compared (release-policy grammar 1.0.0, rule `operator`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// The texts are the same.
    #[default]
    Equals,
    /// The claim is there and its text is another.
    NotEquals,
    /// Both are whole numbers, the claim is the smaller one.
    Less,
    /// Both are whole numbers, the claim is not the larger one.
    LessOrEquals,
    /// Both are whole numbers, the claim is the larger one.
    Greater,
    /// Both are whole numbers, the claim is not the smaller one.
    GreaterOrEquals,
    /// `true`: the claim is there, whatever it is; `false`: it is not.
    Exists,
}

/// Which operators a policy may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operators {
    /// `equals` alone, as in Azure: a policy that is read here means the same there.
    EqualsOnly,
    /// All that the grammar names.
    All,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 7] = [
        Self::Equals,
        Self::NotEquals,
        Self::Less,
        Self::LessOrEquals,
        Self::Greater,
        Self::GreaterOrEquals,
        Self::Exists,
    ];

    /// The name in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equals => "equals",
            Self::NotEquals => "notEquals",
            Self::Less => "less",
            Self::LessOrEquals => "lessOrEquals",
            Self::Greater => "greater",
            Self::GreaterOrEquals => "greaterOrEquals",
            Self::Exists => "exists",
        }
    }

    /// Whether this is [`Operator::Equals`], the one that names the value it accepts.
    pub const fn is_equals(&self) -> bool {
        matches!(self, Self::Equals)
    }

    /// What the operator can be given, or `None` when it can compare with `value`.
    pub(super) fn wants(self, value: &Scalar) -> Option<&'static str> {
        match self {
            Self::Equals | Self::NotEquals => None,
            Self::Exists => match value.truth() {
                Some(_) => None,
                None => Some("true or false"),
            },
            Self::Less | Self::LessOrEquals | Self::Greater | Self::GreaterOrEquals => {
                match value.whole() {
                    Some(_) => None,
                    None => Some("a whole number"),
                }
            }
        }
    }

    /// Whether the comparison is met. `present` counts claims of every form, `found` is the value that can be compared.
    pub(super) fn holds(self, present: bool, found: Option<&Scalar>, expected: &Scalar) -> bool {
        if self == Self::Exists {
            return expected.truth() == Some(present);
        }
        let Some(found) = found else { return false };
        let numbers = found.whole().zip(expected.whole());
        let ordered = |holds: fn(&i64, &i64) -> bool| numbers.is_some_and(|(a, b)| holds(&a, &b));
        match self {
            Self::Equals => found.same_text(expected),
            Self::NotEquals => !found.same_text(expected),
            Self::Less => ordered(i64::lt),
            Self::LessOrEquals => ordered(i64::le),
            Self::Greater => ordered(i64::gt),
            Self::GreaterOrEquals => ordered(i64::ge),
            Self::Exists => false,
        }
    }

    /// The words before an expected value.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Equals => "",
            Self::NotEquals => "not ",
            Self::Less => "less than ",
            Self::LessOrEquals => "at most ",
            Self::Greater => "more than ",
            Self::GreaterOrEquals => "at least ",
            Self::Exists => "exists ",
        }
    }
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Scalar {
    /// The whole number that this is, or whose decimal text it is.
    fn whole(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => {
                text.parse::<i64>().ok().filter(|number| number.to_string() == *text)
            }
            Self::Bool(_) => None,
        }
    }

    /// The truth value that this is, or whose text it is.
    fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::Text(text) => text.parse().ok(),
            Self::Number(_) => None,
        }
    }
}
