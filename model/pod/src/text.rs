//! Text that may hold facts which only the cluster knows, and Kubernetes' `$(NAME)` expansion.

use serde::{Deserialize, Serialize};

use crate::HostValues;

/// A fact that a pod's text can hold and that only the cluster knows (downward API `fieldRef`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostFact {
    /// `metadata.name` of a pod that a controller names.
    PodName,
    /// `metadata.namespace` of a manifest that does not say it.
    PodNamespace,
    /// `metadata.uid`.
    PodUid,
    /// `status.podIP`.
    PodIp,
    /// `status.podIPs`: one address a family, separated by commas.
    PodIps,
    /// `status.hostIP`.
    HostIp,
    /// `status.hostIPs`.
    HostIps,
    /// `spec.nodeName`.
    NodeName,
    /// Number of a pod: a StatefulSet's ordinal, an Indexed Job's completion index.
    PodIndex,
    /// Cluster address of a service, by its index in [`crate::Pod::services`].
    ServiceIp(usize),
}

/// One piece of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Text from the owner.
    Literal(String),
    /// A value from the host.
    Host(HostFact),
}

/// Text from the owner with the host's facts at marked places only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    parts: Vec<Part>,
    /// Whether some of it comes from a Secret: enforced like any text, but not shown to people.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    secret: bool,
}

impl Text {
    /// The text that is one host fact.
    pub fn host(fact: HostFact) -> Self {
        Self { parts: vec![Part::Host(fact)], secret: false }
    }

    /// A text that comes from a Secret.
    pub fn secret(text: &str) -> Self {
        Self { secret: true, ..text.into() }
    }

    /// Whether it, or something that was expanded into it, comes from a Secret.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// The pieces in order; literals are never empty and never adjacent.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text itself when no host fact is in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with the host's facts put in.
    pub fn render(&self, host: &HostValues) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_str(),
                Part::Host(fact) => host.fact(*fact),
            })
            .collect()
    }

    fn push_char(&mut self, c: char) {
        match self.parts.last_mut() {
            Some(Part::Literal(text)) => text.push(c),
            _ => self.parts.push(Part::Literal(c.into())),
        }
    }

    pub(crate) fn push(&mut self, other: &Text) {
        self.secret |= other.secret;
        for part in &other.parts {
            match (self.parts.last_mut(), part) {
                (Some(Part::Literal(text)), Part::Literal(more)) => text.push_str(more),
                _ => self.parts.push(part.clone()),
            }
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let literal = (!text.is_empty()).then(|| Part::Literal(text.into()));
        Self { parts: literal.into_iter().collect(), secret: false }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// Kubernetes' expansion of `$(NAME)`: a known name is replaced, an unknown one stays as written,
/// `$$` becomes `$`, and what was put in is not expanded again.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<Text>) -> Text {
    let mut out = Text::default();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '$' {
            out.push_char(c);
            continue;
        }
        let after = rest.as_str();
        if let Some(tail) = after.strip_prefix('$') {
            out.push_char('$');
            rest = tail.chars();
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push(&value),
                None => out.push(&format!("$({name})").into()),
            }
            rest = tail.chars();
        } else {
            out.push_char('$');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let known = |name: &str| match name {
            "A" => Some(Text::from("x")),
            "LOOP" => Some(Text::from("$(A)")),
            "EMPTY" => Some(Text::default()),
            _ => None,
        };
        assert_eq!(expand(text, known).as_literal(), Some(expect), "{text}");
    }

    #[test]
    fn expansion_follows_kubernetes() {
        check("$(A)", "x");
        check("a$(A)b$(A)", "axbx");
        check("$(UNKNOWN)", "$(UNKNOWN)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$x");
        check("$$$$(A)", "$$(A)");
        check("$(LOOP)", "$(A)");
        check("$(A", "$(A");
        check("$", "$");
        check("$A ${A} $)", "$A ${A} $)");
        check("$(EMPTY)", "");
        check("$()", "$()");
        check("$($(A))", "$($(A))");
    }

    #[test]
    fn a_host_fact_survives_expansion() {
        let text =
            expand("--ip=$(IP):1", |name| (name == "IP").then(|| Text::host(HostFact::PodIp)));
        assert_eq!(text.parts().len(), 3);
        assert_eq!(text.as_literal(), None);
    }

    #[test]
    fn what_a_secret_is_expanded_into_is_secret_too() {
        let known = |name: &str| match name {
            "PASSWORD" => Some(Text::secret("hush")),
            "USER" => Some(Text::from("me")),
            _ => None,
        };
        for (text, expect) in [("db://$(USER):$(PASSWORD)@x", true), ("$(USER)$$(PASSWORD)", false)]
        {
            assert_eq!(expand(text, known).is_secret(), expect, "{text}");
        }
    }
}
