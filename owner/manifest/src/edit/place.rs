//! Lines put into a mapping in the owner's layout.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Change, quoted};
use crate::yaml::{Node, NodeKind};

/// Lines of a block mapping: depth below the place where they are put, key, and value or nothing.
pub(super) type Lines = Vec<(usize, String, String)>;

/// `keys` one below the other, then the annotations.
pub(super) fn nested(keys: &[&str], annotations: &BTreeMap<String, String>) -> Lines {
    let outer = keys.iter().enumerate().map(|(depth, key)| (depth, (*key).into(), String::new()));
    let inner = annotations.iter().map(|(key, value)| (keys.len(), key.clone(), quoted(value)));
    match annotations.is_empty() {
        true => Lines::new(),
        false => outer.chain(inner).collect(),
    }
}

/// A key in block style, plain unless it reads as something else.
fn block_line(key: &str, value: &str) -> String {
    let key = match crate::scalar::plain(key) {
        Ok(Value::String(_)) => key.into(),
        _ => quoted(key),
    };
    format!("{key}: {value}").trim_end().into()
}

/// Whether keys are written as JSON writes them: here, or where the mapping stands.
fn is_json(text: &str, key: Option<&Node>, value: &Node) -> bool {
    let first = match &value.kind {
        NodeKind::Mapping { entries, .. } => entries.first().map(|(key, _)| key),
        _ => None,
    };
    let key = first.or(key);
    key.is_some_and(|key| text.get(key.range.start..).is_some_and(|text| text.starts_with('"')))
}

/// Puts `lines` into the mapping `value` of `key`.
pub(super) fn insert(
    text: &str,
    key: Option<&Node>,
    value: &Node,
    lines: &Lines,
    changes: &mut Vec<Change>,
) -> Option<()> {
    if lines.is_empty() {
        return Some(());
    }
    let json = is_json(text, key, value);
    match &value.kind {
        NodeKind::Mapping { entries, flow: false } => insert_before_first(entries, lines, changes),
        NodeKind::Mapping { entries, flow: true } => {
            let comma = if entries.is_empty() { "" } else { ", " };
            let start = value.range.start.checked_add(1)?;
            changes.push(Change { start, end: start, text: flow(lines, json)? + comma });
            Some(())
        }
        // `key:` with nothing, or with a null written out
        NodeKind::Scalar { value: Value::Null, .. } if value.range.is_empty() => {
            let key = key?;
            let end =
                text.get(key.range.end..)?.find('\n').map_or(text.len(), |at| key.range.end + at);
            let mut added = String::new();
            for (depth, name, value) in lines {
                let indent = " ".repeat(key.column + 2 + 2 * depth);
                added += &format!("\n{indent}{}", block_line(name, value));
            }
            changes.push(Change { start: end, end, text: added });
            Some(())
        }
        NodeKind::Scalar { value: Value::Null, .. } => {
            let text = format!("{{{}}}", flow(lines, json)?);
            changes.push(Change { start: value.range.start, end: value.range.end, text });
            Some(())
        }
        _ => None,
    }
}

fn insert_before_first(
    entries: &[(Node, Node)],
    lines: &Lines,
    changes: &mut Vec<Change>,
) -> Option<()> {
    let (first, _) = entries.first()?;
    let mut text = String::new();
    for (index, (depth, name, value)) in lines.iter().enumerate() {
        let indent = if index == 0 { 0 } else { first.column + 2 * depth };
        text += &format!("{}{}\n", " ".repeat(indent), block_line(name, value));
    }
    text += &" ".repeat(first.column);
    changes.push(Change { start: first.range.start, end: first.range.start, text });
    Some(())
}

/// The lines as entries of a flow mapping.
fn flow(lines: &Lines, json: bool) -> Option<String> {
    let mut text = String::new();
    let mut open = 0;
    let mut just_opened = true;
    for (index, (depth, name, value)) in lines.iter().enumerate() {
        if *depth != open {
            return None;
        }
        if !just_opened {
            text += ", ";
        }
        text += &match json {
            true => format!("{}: {value}", quoted(name)),
            false => block_line(name, value),
        };
        just_opened = lines.get(index + 1).is_some_and(|(next, ..)| next > depth);
        if just_opened {
            text = format!("{} {{", text.trim_end());
            open += 1;
        }
    }
    Some(text + &"}".repeat(open))
}
