//! The owner's choices that no field of Kubernetes has: what the host may do beside what the pod's YAML says.

use std::collections::BTreeMap;

use ah_grant::{FragmentSource, OwnerKey};
use serde::{Deserialize, Serialize};

/// Those of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerChoices {
    /// Commands that the host may have run of which some words may vary (annotation `anchorhold.dev/exec`).
    pub exec_patterns: Vec<Vec<Word>>,
    /// Environment variables whose values the host may choose, each within a bound (`anchorhold.dev/mutable`).
    pub mutable: BTreeMap<String, Bound>,
    /// Whether the host may read the termination message back (`anchorhold.dev/termination-log`).
    pub termination_log: TerminationLog,
}

/// A word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word {
    /// This word.
    Exact(String),
    /// Any word within the bound.
    Within(Bound),
}

/// What a text may be. Always the whole text: a part of it never decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// It matches this regular expression from its first to its last character.
    Pattern(String),
    /// This text, then one name: letters, digits, `.`, `_` and `-`, not starting with a dot, so that no path leads up.
    Prefix(String),
    /// One of these.
    OneOf(Vec<String>),
}

/// Whether the termination message leaves the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminationLog {
    /// It does not.
    #[default]
    Closed,
    /// The host may read it.
    Readable,
}

/// What keys and execs wait for (annotation `anchorhold.dev/whole-pod`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WholePod {
    /// For nothing beside their own container.
    #[default]
    NotAwaited,
    /// Until every declared container has been created: a host that leaves out a sidecar gets neither.
    Awaited,
}

/// Keys whose statements the pod's guest believes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerKeys {
    /// Whose debug grants let commands run in the pod (annotation `anchorhold.dev/debug-key`).
    pub debug: Option<OwnerKey>,
    /// Whose fragments may add containers to the pod (annotation `anchorhold.dev/fragments`).
    pub fragments: Vec<FragmentSource>,
}
