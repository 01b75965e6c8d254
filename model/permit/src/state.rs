//! What the policy remembers between requests.

use std::sync::Arc;

use regorus::Value;

/// Most bytes that all changes of a sandbox's life may add. Each container id and exec id is remembered, so that it
/// cannot come twice; a host that keeps making them runs into this and not into the guest's memory.
pub const MAX_STATE_BYTES: usize = 32 << 20;

/// The data document beside the policy: `{"guest": {"exits": {...}}, "pstate": {...}}`. Operations of rules change
/// `pstate` alone; `guest` is what the guest itself saw, which no request of the host can say.
#[derive(Debug, Clone)]
pub struct State {
    document: Arc<Value>,
    spent_bytes: usize,
}

/// Part of the document that the guest writes, and the member of it for exit codes by container id.
const GUEST: &str = "guest";
const EXITS: &str = "exits";

/// What a permitted request changes, to be committed after its effect.
#[derive(Debug, Clone)]
#[must_use = "the state must follow the effect"]
pub struct Changes {
    /// The state that was decided upon.
    before: Arc<Value>,
    /// The state that follows; `None` when the request changes nothing.
    after: Option<Arc<Value>>,
    added_bytes: usize,
}

/// The state moved on between the decision and the commit: two requests were decided upon the same state. The effect
/// must be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("policy state changed between decision and commit")]
pub struct StaleState;

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state of a policy that was just set.
    pub fn new() -> Self {
        let mut document = Value::new_object();
        if let Ok(members) = document.as_object_mut() {
            members.insert(Value::from("pstate"), Value::new_object());
            members.insert(Value::from(GUEST), Value::new_object());
        }
        Self { document: Arc::new(document), spent_bytes: 0 }
    }

    /// Takes the changes of a permit over. The caller holds one lock from the decision to here for every request
    /// whose changes are not empty, or two containers could be created upon one permission.
    ///
    /// # Errors
    /// [`StaleState`] when another commit came in between; the state is as before and the effect must be undone.
    pub fn commit(&mut self, changes: Changes) -> Result<(), StaleState> {
        let Some(after) = changes.after else { return Ok(()) };
        if !Arc::ptr_eq(&self.document, &changes.before) {
            return Err(StaleState);
        }
        self.document = after;
        self.spent_bytes = self.spent_bytes.saturating_add(changes.added_bytes);
        Ok(())
    }

    /// Notes that the first process of a container has ended. Rules read the exit code as `data.guest.exits[id]`.
    /// Called between a decision and its commit, it makes the commit fail; so it takes the same lock.
    pub fn note_exit(&mut self, container_id: &str, exit_code: i32) {
        let id = Value::from(container_id);
        let known = self.document.as_object().ok().and_then(|d| d.get(&Value::from(GUEST)));
        let exits = known.and_then(|guest| guest.as_object().ok()?.get(&Value::from(EXITS)));
        if exits.and_then(|exits| exits.as_object().ok()).is_some_and(|e| e.contains_key(&id)) {
            return;
        }
        let mut exits = exits.cloned().unwrap_or_else(Value::new_object);
        if let Ok(members) = exits.as_object_mut() {
            members.insert(id, Value::from(i64::from(exit_code)));
        }
        let mut guest = Value::new_object();
        if let Ok(members) = guest.as_object_mut() {
            members.insert(Value::from(EXITS), exits);
        }
        let mut document = (*self.document).clone();
        if let Ok(members) = document.as_object_mut() {
            members.insert(Value::from(GUEST), guest);
        }
        self.document = Arc::new(document);
    }

    pub(crate) fn document(&self) -> &Arc<Value> {
        &self.document
    }

    pub(crate) fn has_room_for(&self, added_bytes: usize) -> bool {
        self.spent_bytes.saturating_add(added_bytes) <= MAX_STATE_BYTES
    }

    pub(crate) fn unchanged(&self) -> Changes {
        Changes { before: Arc::clone(&self.document), after: None, added_bytes: 0 }
    }

    pub(crate) fn changed_to(&self, after: Value, added_bytes: usize) -> Changes {
        Changes { before: Arc::clone(&self.document), after: Some(Arc::new(after)), added_bytes }
    }
}

impl Changes {
    /// Whether the request leaves the state as it is; then no lock is needed.
    pub fn is_empty(&self) -> bool {
        self.after.is_none()
    }
}
