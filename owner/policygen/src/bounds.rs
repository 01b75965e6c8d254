//! The owner's bounds: checked once, and written as the rules read them.
//!
//! A regular expression is anchored here, around a group of its own, so that none of its alternatives gets out of the anchors.
//! The engine in the guest takes the same syntax and the same size.

use ah_pod::Bound;
use regex::RegexBuilder;
use serde::{Deserialize, Serialize};

use crate::generate::GenerateError;

/// Largest compiled expression, bytes: what the guest's engine takes (regorus, `REGEX_SIZE_LIMIT`).
const MAX_COMPILED_BYTES: usize = 100 * 1024;
/// Longest expression, bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// A name behind a prefix: no slash, and no dot in front.
const NAME: &str = "[0-9A-Za-z_-][0-9A-Za-z._-]{0,254}";

/// A bound in the policy's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum BoundData {
    Pattern(PatternData),
    OneOf(OneOfData),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatternData {
    /// Anchored at both ends.
    pub(crate) pattern: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneOfData {
    pub(crate) one_of: Vec<String>,
}

/// A word of a command in the policy's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum WordData {
    Exact(String),
    Within(BoundData),
}

impl BoundData {
    /// Checks a bound; `place` names it for people.
    pub(crate) fn of(bound: &Bound, place: &str) -> Result<Self, GenerateError> {
        let wrong = |detail: String| GenerateError::Bound { place: place.to_owned(), detail };
        let pattern = match bound {
            Bound::OneOf(texts) if texts.is_empty() => {
                return Err(wrong("one-of lists nothing".to_owned()));
            }
            Bound::OneOf(texts) => return Ok(Self::OneOf(OneOfData { one_of: texts.clone() })),
            Bound::Prefix(text) => format!("^{}{NAME}$", regex::escape(text)),
            Bound::Pattern(pattern) => {
                check(pattern).map_err(wrong)?;
                format!("^(?:{pattern})$")
            }
        };
        compile(&pattern).map_err(wrong)?;
        Ok(Self::Pattern(PatternData { pattern }))
    }

    /// Whether the whole text is within the bound, as the rules decide it.
    pub(crate) fn holds(&self, text: &str) -> bool {
        match self {
            Self::OneOf(all) => all.one_of.iter().any(|one| one == text),
            Self::Pattern(p) => compile(&p.pattern).is_ok_and(|regex| regex.is_match(text)),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::OneOf(all) => format!("one of {}", all.one_of.join(", ")),
            Self::Pattern(p) => format!("matching {}", p.pattern),
        }
    }
}

/// The expression must stand by itself: one that only fits into the group around it would end that group.
fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "pattern has {} bytes, expected at most {MAX_PATTERN_BYTES}",
            pattern.len()
        ));
    }
    let flags = pattern.split("(?").skip(1).any(|rest| !rest.starts_with(':'));
    if flags || pattern.chars().any(char::is_control) {
        return Err(format!(
            "pattern {pattern:?} has flags or control characters, expected neither"
        ));
    }
    compile(pattern).map(drop)
}

fn compile(pattern: &str) -> Result<regex::Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build();
    built.map_err(|error| format!("pattern {pattern:?}: {}", error.to_string().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_takes_the_whole_text_or_nothing() {
        let check = |bound: Bound, allowed: &[&str], denied: &[&str]| {
            let data = BoundData::of(&bound, "test").unwrap();
            allowed.iter().for_each(|text| assert!(data.holds(text), "{bound:?} {text:?}"));
            denied.iter().for_each(|text| assert!(!data.holds(text), "{bound:?} {text:?}"));
        };
        let pattern = |text: &str| Bound::Pattern(text.to_owned());
        check(pattern("a|b"), &["a", "b"], &["", "ab", "ax", "xb", "a\n", "\na", "a\nb"]);
        check(pattern("[0-9]{1,3}"), &["7", "123"], &["1234", "12 ", "x1"]);
        check(pattern("(?:info|debug)"), &["info"], &["infox"]);
        check(
            Bound::Prefix("/var/log/a.b-".to_owned()),
            &["/var/log/a.b-x", "/var/log/a.b-x.log"],
            &[
                "/var/log/a.b-",
                "/var/log/aXb-x",
                "/var/log/a.b-../../etc/shadow",
                "/var/log/a.b-x/y",
                "x/var/log/a.b-x",
            ],
        );
        check(
            Bound::Prefix("/logs/".to_owned()),
            &["/logs/a"],
            &["/logs/..", "/logs/.x", "/logs/a\nb"],
        );
        check(Bound::OneOf(vec!["a.c".to_owned()]), &["a.c"], &["abc", "a.cx", ""]);
    }

    #[test]
    fn attack_a_pattern_that_leaves_its_anchors_is_refused() {
        for pattern in [
            "a)|(?:b",
            "a)|(b",
            "(?m)a",
            "(?x)a #",
            "(?i)a",
            "(?P<n>a)",
            "a\nb",
            "[",
            "(",
            "a{99999999}",
        ] {
            let bound = BoundData::of(&Bound::Pattern(pattern.to_owned()), "test");
            assert!(bound.is_err(), "{pattern:?}");
        }
        assert!(BoundData::of(&Bound::OneOf(Vec::new()), "test").is_err());
    }
}
