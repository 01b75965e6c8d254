//! How a claim is made from what was found and what is expected.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::appraisal::{Claim, Verdict};
use crate::reference::{Allowance, Expect, Requirement};

pub(crate) struct Claims(pub(crate) Vec<Claim>);

impl Claims {
    pub(crate) fn check<T>(
        &mut self,
        name: &'static str,
        found: impl Display,
        expect: &Expect<T>,
        describe: impl FnOnce(&T) -> String,
        met: impl FnOnce(&T) -> bool,
    ) {
        let (expected, verdict) = match expect {
            Expect::Any { reason } => (reason.clone(), Verdict::Waived),
            Expect::Is(is) if met(is) => (describe(is), Verdict::Met),
            Expect::Is(is) => (describe(is), Verdict::NotMet),
        };
        let met = verdict != Verdict::NotMet;
        self.0.push(Claim { name, found: found.to_string(), expected, met, verdict });
    }

    pub(crate) fn equal<T: Display + PartialEq>(
        &mut self,
        name: &'static str,
        found: T,
        expect: &Expect<T>,
    ) {
        self.check(name, &found, expect, T::to_string, |is| *is == found);
    }

    pub(crate) fn one_of<T: Display + Ord>(
        &mut self,
        name: &'static str,
        found: T,
        expect: &Expect<BTreeSet<T>>,
    ) {
        self.check(name, &found, expect, list, |set| set.contains(&found));
    }

    pub(crate) fn allowance(
        &mut self,
        name: &'static str,
        found: bool,
        expect: &Expect<Allowance>,
    ) {
        let expect = match expect {
            Expect::Is(Allowance::Allowed) => Expect::any("allowed"),
            other => other.clone(),
        };
        self.check(name, on_or_off(found), &expect, |_| "off".to_owned(), |_| !found);
    }

    pub(crate) fn requirement(
        &mut self,
        name: &'static str,
        found: bool,
        expect: &Expect<Requirement>,
    ) {
        let expect = match expect {
            Expect::Is(Requirement::Optional) => Expect::any("optional"),
            other => other.clone(),
        };
        self.check(name, on_or_off(found), &expect, |_| "on".to_owned(), |_| found);
    }
}

/// The same waiver, or one part of what is expected.
pub(crate) fn map<T, U>(expect: &Expect<T>, part: impl FnOnce(&T) -> U) -> Expect<U> {
    match expect {
        Expect::Is(is) => Expect::Is(part(is)),
        Expect::Any { reason } => Expect::any(reason),
    }
}

pub(crate) fn on_or_off(found: bool) -> &'static str {
    if found { "on" } else { "off" }
}

pub(crate) fn at_least<T: Copy>(text: impl Fn(T) -> String) -> impl Fn(&T) -> String {
    move |least| format!("at least {}", text(*least))
}

pub(crate) fn list<T: Display>(set: &BTreeSet<T>) -> String {
    match set.len() {
        0 => "none (empty set)".to_owned(),
        1 => set.iter().map(T::to_string).collect(),
        _ => {
            let all: Vec<_> = set.iter().map(T::to_string).collect();
            format!("one of {}", all.join(", "))
        }
    }
}
