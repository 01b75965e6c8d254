//! The answer, for people and as JSON.

use ah_appraise::{Appraisal, Claim, Verdict};
use ah_evidence::Tee;
use serde_json::{Value, json};

use crate::ui;

/// Something that was found and that nobody has to expect.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) found: String,
    pub(super) meaning: &'static str,
}

/// What came of a verification.
pub(super) enum Outcome {
    /// Not believed.
    Refused {
        /// Name of the check.
        check: &'static str,
        /// What was found and what was expected.
        message: String,
    },
    /// Believed, and compared with what is expected.
    Appraised(Appraisal),
    /// Believed; there is nothing to compare.
    Believed,
}

/// The answer to one `verify`.
pub(super) struct Answer {
    /// `report`, `quote`, `token`.
    pub(super) kind: &'static str,
    /// In which form it came.
    pub(super) form: String,
    pub(super) facts: Vec<Fact>,
    pub(super) outcome: Outcome,
}

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Answer {
    pub(super) fn refused(
        kind: &'static str,
        form: impl ToString,
        check: &'static str,
        error: &dyn std::error::Error,
    ) -> Self {
        let outcome = Outcome::Refused { check, message: chain(error) };
        Self { kind, form: form.to_string(), facts: Vec::new(), outcome }
    }

    pub(super) fn is_accepted(&self) -> bool {
        match &self.outcome {
            Outcome::Refused { .. } => false,
            Outcome::Appraised(appraisal) => appraisal.is_met(),
            Outcome::Believed => true,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let facts = self.facts.iter();
        let facts = facts
            .map(|fact| json!({ "name": fact.name, "found": fact.found, "meaning": fact.meaning }));
        let mut answer = json!({
            "accepted": self.is_accepted(),
            "met": self.is_accepted(),
            "kind": self.kind,
            "form": self.form,
            "facts": facts.collect::<Vec<_>>(),
        });
        let (key, value) = match &self.outcome {
            Outcome::Refused { check, message } => {
                ("refused", json!({ "check": check, "message": message }))
            }
            Outcome::Appraised(appraisal) => ("appraisal", json!(appraisal)),
            Outcome::Believed => return answer,
        };
        if let Some(object) = answer.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
        answer
    }

    /// A line a claim: verdict, name, what was found, what it means.
    pub(super) fn print(&self) {
        if let Outcome::Appraised(appraisal) = &self.outcome {
            ui::say!("tee: {}", appraisal.tee);
        }
        for Fact { name, found, meaning } in &self.facts {
            ui::say!("{:8} {name:32} {found}  # {meaning}", "says");
        }
        match &self.outcome {
            Outcome::Refused { check, message } => ui::say!("REFUSED  {check}: {message}"),
            Outcome::Believed => ui::say!("the {} is genuine", self.kind),
            Outcome::Appraised(appraisal) => print_appraisal(appraisal),
        }
    }
}

fn print_appraisal(appraisal: &Appraisal) {
    for claim in &appraisal.claims {
        let Claim { name, found, expected, verdict, .. } = claim;
        let meaning = claim.meaning();
        match verdict {
            Verdict::Met => ui::say!("{:8} {name:32} {found}  # {meaning}", "met"),
            Verdict::Waived => {
                ui::say!("{:8} {name:32} {found}  # {meaning} ({expected})", "waived");
            }
            Verdict::NotMet => {
                ui::say!(
                    "{:8} {name:32} found {found}, expected {expected}  # {meaning}",
                    "NOT MET"
                );
            }
        }
    }
    match appraisal.unmet().count() {
        0 => ui::say!("every expectation is met"),
        1 => ui::say!("1 expectation is not met"),
        count => ui::say!("{count} expectations are not met"),
    }
    if appraisal.tee == Tee::Software {
        eprintln!("{}: this report proves nothing about hardware", ui::SOFTWARE_TEE);
    }
}
