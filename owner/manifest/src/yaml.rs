//! YAML with positions, read in the one way that all Kubernetes tools agree on.
//!
//! Every value of a manifest comes through this parser, so the text that is edited and the objects
//! that are judged cannot differ. What YAML 1.1 (kubectl) and 1.2 read differently is refused.

use std::ops::Range;

use serde_json::{Map, Value};

mod reader;

pub use reader::MAX_TEXT_BYTES;
pub(crate) use reader::parse;

/// One value with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: NodeKind,
    /// Its bytes in the text, quotes and brackets included; empty for a value that is not written.
    pub(crate) range: Range<usize>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 0.
    pub(crate) column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeKind {
    Scalar { value: Value, style: Style },
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Node)>, flow: bool },
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    Block,
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Key and value of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        match &self.kind {
            NodeKind::Mapping { entries, .. } => {
                entries.iter().find(|(name, _)| name.text() == Some(key))
            }
            _ => None,
        }
    }

    /// A scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { value, .. } => value.as_str(),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The node at a path such as `spec.containers[0].image`, or the deepest one on the way.
    pub(crate) fn nearest(&self, path: &str) -> &Node {
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.items().get(index),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// How far a path leads: the last node on the way, its key where it has one, and the keys that
    /// are not there. `None` where a list item is not there.
    pub(crate) fn descend<'a, 'p>(
        &'a self,
        path: &'p str,
    ) -> Option<(Option<&'a Node>, &'a Node, Vec<&'p str>)> {
        let (mut key, mut node) = (None, self);
        let mut rest = Vec::new();
        for step in steps(path) {
            match step {
                Step::Key(name) if !rest.is_empty() => rest.push(name),
                Step::Key(name) => match node.entry(name) {
                    Some((found, value)) => (key, node) = (Some(found), value),
                    None => rest.push(name),
                },
                Step::Index(index) => match node.items().get(index) {
                    Some(item) if rest.is_empty() => (key, node) = (None, item),
                    _ => return None,
                },
            }
        }
        Some((key, node, rest))
    }

    /// The line of the key or item at `path`, or of the deepest one on the way.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.entry(key).map(|(key, value)| (key.line, value)),
                Step::Index(index) => node.items().get(index).map(|item| (item.line, item)),
            };
            let Some((found, next)) = next else { break };
            (line, node) = (found, next);
        }
        line
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar { value, .. } => value.clone(),
            NodeKind::Sequence(items) => items.iter().map(Node::to_json).collect(),
            NodeKind::Mapping { entries, .. } => {
                let entries = entries
                    .iter()
                    .filter_map(|(key, value)| Some((key.text()?.to_owned(), value.to_json())));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Splits `a.b[0].c`; keys with dots in them are not reachable, which only costs a line number.
pub(crate) fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|step| !step.is_empty()).map(|step| {
        match step.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => Step::Index(index),
            None => Step::Key(step),
        }
    })
}

#[cfg(test)]
mod tests;
