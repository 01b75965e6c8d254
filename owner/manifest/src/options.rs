//! What the owner decides about the reading itself.

use std::str::FromStr;

use crate::error::Problem;
use crate::rules::Rules;

/// How manifests are read. The default refuses everything that is not understood.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Which kinds beside Kubernetes' own embed pods, and where.
    pub rules: Rules,
    /// What becomes of an object of another kind that has something like a pod in it.
    pub unknown_pods: UnknownPods,
    /// What becomes of a pod to which its controller adds what no rule says.
    pub incomplete: Incomplete,
    /// What pods run on that do not say it themselves ([`crate::RUNS_ON_ANNOTATION`]).
    pub platform: Platform,
}

/// What the pods will run on: what is added to a pod depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Platform {
    /// `anchorhold run`: nothing is added.
    #[default]
    OneMachine,
    /// A Kubernetes cluster: pods get a service account's token unless they refuse it, and variables of the API's service.
    Cluster,
}

impl Platform {
    /// The word for it in annotation and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::OneMachine => "machine",
            Self::Cluster => "cluster",
        }
    }
}

impl FromStr for Platform {
    type Err = Problem;

    fn from_str(word: &str) -> Result<Self, Problem> {
        let all = [Self::Cluster, Self::OneMachine];
        all.into_iter().find(|platform| platform.word() == word).ok_or_else(|| Problem::Value {
            found: word.into(),
            expected: "\"cluster\" or \"machine\"".into(),
        })
    }
}

/// What becomes of something that looks like a pod in an object of a kind without a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownPods {
    /// It is an error, with its path.
    #[default]
    Refuse,
    /// The object passes through untouched: what it runs has no policy, and gets no key.
    PassThrough,
}

/// What becomes of a pod to which its controller adds what no rule says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Incomplete {
    /// It is an error, with what the controller adds.
    #[default]
    Refuse,
    /// It is read as it stands, and [`crate::PodTemplate::incomplete`] says what is lacking: its
    /// policy denies whatever the controller adds.
    Accept,
}
