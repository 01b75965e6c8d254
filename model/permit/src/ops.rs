//! The state operations that a rule returns: RFC 6902, bounded, and nowhere but under `/pstate`.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::state::{Changes, State};

/// Most operations of one decision.
pub const MAX_OPS: usize = 64;
/// Most bytes of one decision's operations, as JSON text.
pub const MAX_OPS_BYTES: usize = 8 << 20;

/// Applies the operations to a copy of the state.
pub(crate) fn apply(state: &State, ops: &Value) -> Result<Changes, String> {
    let list = ops.as_array().ok_or("ops: expected a list")?;
    if list.is_empty() {
        return Ok(state.unchanged());
    }
    if list.len() > MAX_OPS {
        return Err(format!("ops: found {}, expected at most {MAX_OPS}", list.len()));
    }
    let added_bytes = list.iter().map(size).sum();
    if added_bytes > MAX_OPS_BYTES || !state.has_room_for(added_bytes) {
        return Err("ops: the policy state is full".to_owned());
    }
    let patch: Patch = serde_json::from_value(ops.clone()).map_err(|err| format!("ops: {err}"))?;
    for operation in &patch.0 {
        if !under_pstate(operation) {
            return Err(format!("ops: path {:?} is not under /pstate", operation.path().as_str()));
        }
    }
    let mut after = (**state.document()).clone();
    json_patch::patch(&mut after, &patch.0).map_err(|err| format!("ops: {err}"))?;
    Ok(state.changed_to(after, added_bytes))
}

fn under_pstate(operation: &PatchOperation) -> bool {
    let inside = |path: &str| path.starts_with("/pstate/");
    let from = match operation {
        PatchOperation::Move(operation) => inside(operation.from.as_str()),
        PatchOperation::Copy(operation) => inside(operation.from.as_str()),
        _ => true,
    };
    from && inside(operation.path().as_str())
}

/// A bound on the bytes of a value: its texts and keys, and 8 for each node.
fn size(value: &Value) -> usize {
    let own = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 0,
    };
    own.saturating_add(8)
}
