//! The state operations that a rule returns: RFC 6902, bounded, and nowhere but under `/pstate`.
//!
//! They work on the engine's own values, which share what does not change: a state of many recorded requests costs
//! nothing to copy.

use regorus::Value;

use crate::state::{Changes, State};

/// Most operations of one decision.
pub const MAX_OPS: usize = 64;
/// Most bytes of one decision's operations: their texts, and 8 for each value.
pub const MAX_OPS_BYTES: usize = 8 << 20;

/// The only part of the data document that a policy may change.
const ROOT: &str = "/pstate/";

/// Applies the operations to a copy of the state.
pub(crate) fn apply(state: &State, ops: &Value) -> Result<Changes, String> {
    let list = ops.as_array().map_err(|_| "ops: expected a list")?;
    if list.iter().next().is_none() {
        return Ok(state.unchanged());
    }
    let count = list.iter().count();
    if count > MAX_OPS {
        return Err(format!("ops: found {count}, expected at most {MAX_OPS}"));
    }
    let added_bytes = list.iter().map(size).fold(0, usize::saturating_add);
    if added_bytes > MAX_OPS_BYTES || !state.has_room_for(added_bytes) {
        return Err("ops: the policy state is full".to_owned());
    }
    let mut after = (**state.document()).clone();
    for op in list.iter() {
        let op = Operation::read(op).map_err(|detail| format!("ops: {detail}"))?;
        op.apply(&mut after).map_err(|detail| format!("ops: {detail}"))?;
    }
    Ok(state.changed_to(after, added_bytes))
}

/// One operation, its members read.
enum Operation<'a> {
    Add(Pointer, &'a Value),
    Remove(Pointer),
    Replace(Pointer, &'a Value),
    Move(Pointer, Pointer),
    Copy(Pointer, Pointer),
    Test(Pointer, &'a Value),
}

impl<'a> Operation<'a> {
    fn read(op: &'a Value) -> Result<Self, String> {
        let members = op.as_object().map_err(|_| "an operation is not an object")?;
        let text = |name: &str| {
            let value = members.get(&Value::from(name)).and_then(|value| value.as_string().ok());
            value.ok_or_else(|| format!("an operation has no {name:?}"))
        };
        let value =
            || members.get(&Value::from("value")).ok_or("an operation has no \"value\"".to_owned());
        let path = Pointer::read(text("path")?)?;
        Ok(match text("op")?.as_ref() {
            "add" => Self::Add(path, value()?),
            "remove" => Self::Remove(path),
            "replace" => Self::Replace(path, value()?),
            "move" => Self::Move(Pointer::read(text("from")?)?, path),
            "copy" => Self::Copy(Pointer::read(text("from")?)?, path),
            "test" => Self::Test(path, value()?),
            other => return Err(format!("unknown operation {other:?}")),
        })
    }

    fn apply(self, document: &mut Value) -> Result<(), String> {
        match self {
            Self::Add(path, value) => path.add(document, value.clone()),
            Self::Remove(path) => path.remove(document).map(drop),
            Self::Replace(path, value) => {
                path.remove(document)?;
                path.add(document, value.clone())
            }
            Self::Move(from, path) => {
                let value = from.remove(document)?;
                path.add(document, value)
            }
            Self::Copy(from, path) => {
                let value = from.value(document)?.clone();
                path.add(document, value)
            }
            Self::Test(path, value) => match path.value(document)? == value {
                true => Ok(()),
                false => Err("a test does not hold".to_owned()),
            },
        }
    }
}

/// A JSON pointer (RFC 6901) under `/pstate`. A state is made of objects and of values that only their rule reads, so
/// pointers go through objects alone.
struct Pointer {
    parents: Vec<Value>,
    last: Value,
}

impl Pointer {
    fn read(text: &str) -> Result<Self, String> {
        if !text.starts_with(ROOT) {
            return Err(format!("path {text:?} is not under /pstate"));
        }
        let token = |token: &str| Value::from(token.replace("~1", "/").replace("~0", "~"));
        let mut parents: Vec<Value> = text.split('/').skip(1).map(token).collect();
        let last = parents.pop().ok_or("an empty path")?;
        Ok(Self { parents, last })
    }

    /// The object that holds the last token's member.
    fn parent<'a>(&self, document: &'a mut Value) -> Result<&'a mut Value, String> {
        let mut at = document;
        for token in &self.parents {
            let members = at.as_object_mut().map_err(|_| NOT_AN_OBJECT)?;
            at = members.get_mut(token).ok_or_else(|| absent(token))?;
        }
        Ok(at)
    }

    fn value<'a>(&self, document: &'a Value) -> Result<&'a Value, String> {
        let mut at = document;
        for token in self.parents.iter().chain([&self.last]) {
            let members = at.as_object().map_err(|_| NOT_AN_OBJECT)?;
            at = members.get(token).ok_or_else(|| absent(token))?;
        }
        Ok(at)
    }

    fn add(&self, document: &mut Value, value: Value) -> Result<(), String> {
        let members = self.parent(document)?.as_object_mut().map_err(|_| NOT_AN_OBJECT)?;
        members.insert(self.last.clone(), value);
        Ok(())
    }

    fn remove(&self, document: &mut Value) -> Result<Value, String> {
        let members = self.parent(document)?.as_object_mut().map_err(|_| NOT_AN_OBJECT)?;
        members.remove(&self.last).ok_or_else(|| absent(&self.last))
    }
}

const NOT_AN_OBJECT: &str = "a path goes through a value that is no object";

fn absent(token: &Value) -> String {
    format!("there is no {token}")
}

/// A bound on the bytes of a value: its texts and keys, and 8 for each value.
fn size(value: &Value) -> usize {
    let own = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).fold(0, usize::saturating_add),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| size(key).saturating_add(size(value)))
            .fold(0, usize::saturating_add),
        Value::Set(values) => values.iter().map(size).fold(0, usize::saturating_add),
        _ => 0,
    };
    own.saturating_add(8)
}
