//! The outcome: claim by claim, for people and as JSON.

use std::fmt;
use std::ops::Deref;

use ah_evidence::Tee;
use serde::Serialize;

/// How a claim came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Found as expected.
    Met,
    /// Found otherwise.
    NotMet,
    /// The owner expects nothing here.
    Waived,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Name in the field's terms, such as `measurement` or `guest policy: debug`.
    pub name: &'static str,
    /// What the report says.
    pub found: String,
    /// What was expected; for waived claims the reason.
    pub expected: String,
    /// False only where an expectation was not met.
    pub met: bool,
    /// The same with waived claims told apart.
    pub verdict: Verdict,
}

/// All claims about one report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Appraisal {
    /// What the guest runs in, by the root of its chain.
    pub tee: Tee,
    /// The claims, in a fixed order.
    pub claims: Vec<Claim>,
}

/// An appraisal of which every expectation was met. Only [`Appraisal::accept`] makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Accepted(Appraisal);

impl Appraisal {
    /// True if every expectation was met.
    pub fn is_met(&self) -> bool {
        self.claims.iter().all(|claim| claim.met)
    }

    /// The claims that were not met.
    pub fn unmet(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| !claim.met)
    }

    /// The claim of this name.
    pub fn claim(&self, name: &str) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.name == name)
    }

    /// The proof that every expectation was met, to be handed to whoever acts on it.
    ///
    /// # Errors
    /// The appraisal itself, if some expectation was not met.
    pub fn accept(self) -> Result<Accepted, Box<Self>> {
        match self.is_met() {
            true => Ok(Accepted(self)),
            false => Err(Box::new(self)),
        }
    }
}

impl Deref for Accepted {
    type Target = Appraisal;

    fn deref(&self) -> &Appraisal {
        &self.0
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, expected, verdict, .. } = self;
        match verdict {
            Verdict::Met => write!(f, "met      {name}: {found}"),
            Verdict::NotMet => write!(f, "NOT MET  {name}: found {found}, expected {expected}"),
            Verdict::Waived => write!(f, "waived   {name}: {found} ({expected})"),
        }
    }
}

/// A line for each claim; waived ones are named together, or as a line each with `{:#}`.
impl fmt::Display for Appraisal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tee: {}", self.tee)?;
        let each_waived = f.alternate();
        for claim in &self.claims {
            if each_waived || claim.verdict != Verdict::Waived {
                writeln!(f, "{claim}")?;
            }
        }
        if !each_waived {
            self.write_waived(f)?;
        }
        match self.unmet().count() {
            0 => write!(f, "every expectation is met"),
            1 => write!(f, "1 expectation is not met"),
            count => write!(f, "{count} expectations are not met"),
        }
    }
}

impl Appraisal {
    fn write_waived(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
        for claim in self.claims.iter().filter(|claim| claim.verdict == Verdict::Waived) {
            match by_reason.iter_mut().find(|(reason, _)| *reason == claim.expected) {
                Some((_, names)) => names.push(claim.name),
                None => by_reason.push((&claim.expected, vec![claim.name])),
            }
        }
        for (reason, names) in by_reason {
            writeln!(f, "waived   {} ({reason})", names.join(", "))?;
        }
        Ok(())
    }
}
