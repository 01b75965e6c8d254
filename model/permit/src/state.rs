//! What the policy remembers between requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use regorus::Value;

use crate::debug::{DebugChange, DebugSessions};

/// Most bytes that all changes of a sandbox's life may add. Each container id and exec id is remembered, so that it
/// cannot come twice; a host that keeps making them runs into this and not into the guest's memory.
pub const MAX_STATE_BYTES: usize = 32 << 20;

/// The data document beside the policy: `{"guest": {"exits": {...}}, "pstate": {...}}`. Operations of rules change
/// `pstate` alone; `guest` is what the guest itself saw, which no request of the host can say.
#[derive(Debug, Clone)]
pub struct State {
    document: Arc<Value>,
    spent_bytes: usize,
    /// Challenges given out, and sessions that grants have opened.
    debug: DebugSessions,
    /// Issuers and feeds of the fragments that were added to the policy.
    feeds: BTreeSet<(String, String)>,
}

/// Part of the document that the guest writes, and the member of it for exit codes by container id.
const GUEST: &str = "guest";
const EXITS: &str = "exits";
/// The member for what a verified debug grant says, during the decision upon its exec.
const DEBUG: &str = "debug";

/// What a permitted request changes, to be committed after its effect.
#[derive(Debug, Clone)]
#[must_use = "the state must follow the effect"]
pub struct Changes {
    /// The state that was decided upon.
    before: Arc<Value>,
    /// The state that follows; `None` when the request changes nothing.
    after: Option<Arc<Value>>,
    added_bytes: usize,
    debug: Option<DebugChange>,
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
        Self {
            document: Arc::new(document),
            spent_bytes: 0,
            debug: DebugSessions::default(),
            feeds: BTreeSet::new(),
        }
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
        if let Some(change) = changes.debug {
            self.debug.commit(change);
        }
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
        self.document = self.with_guest(EXITS, exits);
    }

    /// The document with another value of a member of `guest`.
    fn with_guest(&self, name: &str, value: Value) -> Arc<Value> {
        let known = self.document.as_object().ok().and_then(|d| d.get(&Value::from(GUEST)));
        let mut guest = known.cloned().unwrap_or_else(Value::new_object);
        if let Ok(members) = guest.as_object_mut() {
            members.insert(Value::from(name), value);
        }
        let mut document = (*self.document).clone();
        if let Ok(members) = document.as_object_mut() {
            members.insert(Value::from(GUEST), guest);
        }
        Arc::new(document)
    }

    /// What rules see while they decide upon the exec of a verified debug grant; nothing commits to it.
    pub(crate) fn seen_with_grant(&self, grant: Value) -> Self {
        Self { document: self.with_guest(DEBUG, grant), ..self.clone() }
    }

    /// Whether no request has changed anything yet: the sandbox is not created.
    pub(crate) fn is_before_sandbox(&self) -> bool {
        *self.document == *Self::new().document
    }

    pub(crate) fn feeds(&self) -> &BTreeSet<(String, String)> {
        &self.feeds
    }

    pub(crate) fn with_feeds(&self, feeds: BTreeSet<(String, String)>) -> Self {
        Self { feeds, ..self.clone() }
    }

    pub(crate) fn debug(&self) -> &DebugSessions {
        &self.debug
    }

    pub(crate) fn debug_mut(&mut self) -> &mut DebugSessions {
        &mut self.debug
    }

    pub(crate) fn document(&self) -> &Arc<Value> {
        &self.document
    }

    pub(crate) fn has_room_for(&self, added_bytes: usize) -> bool {
        self.spent_bytes.saturating_add(added_bytes) <= MAX_STATE_BYTES
    }

    pub(crate) fn unchanged(&self) -> Changes {
        Changes { before: Arc::clone(&self.document), after: None, added_bytes: 0, debug: None }
    }

    pub(crate) fn changed_to(&self, after: Value, added_bytes: usize) -> Changes {
        let (before, after) = (Arc::clone(&self.document), Some(Arc::new(after)));
        Changes { before, after, added_bytes, debug: None }
    }
}

impl Changes {
    /// Whether the request leaves the state as it is; then no lock is needed.
    pub fn is_empty(&self) -> bool {
        self.after.is_none()
    }

    pub(crate) fn with_debug(self, change: DebugChange) -> Self {
        Self { debug: Some(change), ..self }
    }
}
