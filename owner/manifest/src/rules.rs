//! Rules for kinds that are not Kubernetes' own: where the pods are in an object, and what they are called.

use std::sync::LazyLock;

use serde_json::Value;

use crate::error::{ManifestError, Problem};
use crate::kinds;
use crate::options::Incomplete;
use crate::strict::{Failure, below, join, strict};
use crate::workload::Workload;
use crate::yaml;

mod adds;
mod apply;
mod format;

use format::File;
pub(crate) use format::Rule;

/// The rules that come with the project.
const SHIPPED: &str = include_str!("rules/shipped.yaml");

static SHIPPED_RULES: LazyLock<Rules> = LazyLock::new(|| {
    let none = Rules { rules: Vec::new() };
    // a test reads the same text, so that this cannot fail in a build that passed it
    none.with_file(SHIPPED).expect("the shipped rules are rules")
});

/// Which kinds beside Kubernetes' own embed pods.
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::shipped()
    }
}

impl Rules {
    /// The rules that come with the project (docs/kinds.md).
    pub fn shipped() -> Self {
        SHIPPED_RULES.clone()
    }

    /// These rules and those of a file (docs/kinds.md says its form). For a kind that both have,
    /// the file's rule counts.
    ///
    /// # Errors
    /// When the text has an unknown field, a kind twice, or a kind that needs no rule.
    pub fn with_file(mut self, text: &str) -> Result<Self, ManifestError> {
        let mut new: Vec<Rule> = Vec::new();
        for (number, node) in (1..).zip(yaml::parse(text)?) {
            let locate = |error| crate::objects::locate(error, number, &node);
            let file: File = strict(&node.to_json()).map_err(below("")).map_err(locate)?;
            if file.rules.is_empty() {
                let problem = Problem::Missing { expected: "a list of rules".into() };
                return Err(locate(below("")(("rules".into(), problem))));
            }
            for (index, rule) in file.rules.into_iter().enumerate() {
                let fail = below(&format!("rules[{index}]"));
                rule.check().map_err(&fail).map_err(locate)?;
                let same = |other: &Rule| other.is_for(&rule.api_version, &rule.kind);
                if kinds::is_builtin(&rule.api_version, &rule.kind) || new.iter().any(same) {
                    let found = format!("{}/{}", rule.api_version, rule.kind);
                    let expected = "a kind without pods of its own, once".into();
                    let problem = Problem::Value { found, expected };
                    return Err(locate(fail(("kind".into(), problem))));
                }
                new.push(rule);
            }
        }
        self.rules.retain(|rule| !new.iter().any(|new| new.is_for(&rule.api_version, &rule.kind)));
        self.rules.extend(new);
        Ok(self)
    }

    /// The kinds that have a rule, as `apiVersion/kind`.
    pub fn kinds(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| format!("{}/{}", rule.api_version, rule.kind))
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The pods of an object by its kind's rule; `None` where there is no rule.
    pub(crate) fn apply(
        &self,
        value: &Value,
        incomplete: Incomplete,
    ) -> Result<Option<Vec<Workload>>, Failure> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let rule = self.rules.iter().find(|rule| rule.is_for(text("apiVersion"), text("kind")));
        rule.map(|rule| apply::pods(rule, value, incomplete)).transpose()
    }
}

/// Whether a rule's path is one: names, each with `[*]` where it is a list.
pub(super) fn is_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    path.split('.').all(|step| {
        let name = step.strip_suffix("[*]").unwrap_or(step);
        !name.is_empty() && name.chars().all(plain)
    })
}

/// The paths in an object that a rule's path stands for, in their order.
pub(super) fn expand(value: &Value, path: &str) -> Vec<String> {
    let mut found = vec![(String::new(), value)];
    for step in path.split('.') {
        let (name, each) = match step.strip_suffix("[*]") {
            Some(name) => (name, true),
            None => (step, false),
        };
        found = found
            .into_iter()
            .filter_map(|(at, value)| Some((join(&at, name), value.get(name)?)))
            .flat_map(|(at, value)| match (each, value) {
                (false, value) => vec![(at, value)],
                (true, Value::Array(items)) => items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| (format!("{at}[{index}]"), item))
                    .collect(),
                (true, _) => Vec::new(),
            })
            .collect();
    }
    found.into_iter().filter(|(_, value)| !value.is_null()).map(|(at, _)| at).collect()
}
