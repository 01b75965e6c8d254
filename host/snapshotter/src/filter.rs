use crate::snapshot::Snapshot;

/// A filter of containerd's list calls: conditions, all of which must hold.
#[derive(Debug)]
pub(crate) struct Filter(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    field: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    Different(String),
}

/// A filter that is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "filter {filter:?} is not understood at {rest:?}: expected FIELD, FIELD==VALUE or FIELD!=VALUE, joined by commas"
)]
pub(crate) struct FilterError {
    filter: String,
    rest: String,
}

impl Filter {
    /// Reads the syntax of containerd's package `filters`, without the operator `~=`, which nobody uses on snapshots.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        let mut conditions = Vec::new();
        let mut rest = text;
        loop {
            let failed =
                || FilterError { filter: text.to_owned(), rest: rest.chars().take(80).collect() };
            let (condition, after) = condition(rest).ok_or_else(failed)?;
            conditions.push(condition);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(conditions)),
                None => {
                    rest = after;
                    return Err(FilterError {
                        filter: text.to_owned(),
                        rest: rest.chars().take(80).collect(),
                    });
                }
            }
        }
    }

    pub(crate) fn takes(&self, snapshot: &Snapshot) -> bool {
        self.0.iter().all(|condition| {
            let value = field(snapshot, &condition.field);
            match &condition.test {
                Test::Present => value.is_some_and(|value| !value.is_empty()),
                Test::Equal(wanted) => value == Some(wanted),
                Test::Different(unwanted) => value != Some(unwanted),
            }
        })
    }
}

fn field<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a str> {
    match name {
        "name" => Some(&snapshot.name),
        "parent" => Some(snapshot.parent.as_deref().unwrap_or_default()),
        "kind" => Some(snapshot.kind.name()),
        _ => snapshot.labels.get(name.strip_prefix("labels.")?).map(String::as_str),
    }
}

fn condition(text: &str) -> Option<(Condition, &str)> {
    let (field, rest) = field_path(text)?;
    if let Some(rest) = rest.strip_prefix("==") {
        let (value, rest) = value(rest)?;
        return Some((Condition { field, test: Test::Equal(value) }, rest));
    }
    if let Some(rest) = rest.strip_prefix("!=") {
        let (value, rest) = value(rest)?;
        return Some((Condition { field, test: Test::Different(value) }, rest));
    }
    Some((Condition { field, test: Test::Present }, rest))
}

/// `name`, `labels.x`, `labels."a.b/c"`, as the field's name without quotes.
fn field_path(text: &str) -> Option<(String, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/')))
        .unwrap_or(text.len());
    let (plain, rest) = text.split_at(end);
    if plain.ends_with('.') && rest.starts_with('"') {
        let (quoted, rest) = quoted(rest)?;
        return Some((format!("{plain}{quoted}"), rest));
    }
    (!plain.is_empty()).then(|| (plain.to_owned(), rest))
}

fn value(text: &str) -> Option<(String, &str)> {
    if text.starts_with('"') {
        return quoted(text);
    }
    let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    (!value.contains('"')).then(|| (value.to_owned(), rest))
}

/// A quoted text. What Go's `%q` writes for the texts of names: a backslash before a quote or a backslash.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Kind, Moment, VERSION};
    use crate::usage::Usage;

    fn snapshot() -> Snapshot {
        Snapshot {
            version: VERSION,
            id: 3,
            name: "k8s.io/3/a \"b\"".into(),
            parent: Some("k8s.io/2/sha256:00".into()),
            kind: Kind::Committed,
            labels: [("containerd.io/snapshot.ref".into(), "sha256:11".into())].into(),
            created: Moment::now(),
            updated: Moment::now(),
            usage: Usage::default(),
            layer: None,
        }
    }

    #[test]
    fn filters_of_containerd_are_read() {
        let check = |text: &str, expect: bool| {
            assert_eq!(Filter::parse(text).unwrap().takes(&snapshot()), expect, "{text}");
        };
        check(
            r#"labels."containerd.io/snapshot.ref"==sha256:11,parent=="k8s.io/2/sha256:00""#,
            true,
        );
        check(r#"labels."containerd.io/snapshot.ref"==sha256:11,parent=="other""#, false);
        check(r#"labels."containerd.io/snapshot.ref""#, true);
        check(r#"labels."containerd.io/snapshot.re""#, false);
        check("kind==committed", true);
        check("kind!=committed", false);
        check(r#"name=="k8s.io/3/a \"b\"""#, true);
    }

    #[test]
    fn other_filters_are_refused() {
        for text in ["", "name~=x", "name==\"x", "name==x\"y", ",", "name==x,", r#"name=="\n""#] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
