//! decide(policy, state, request) -> Permit or Denial with reasons; the Rego engine is private here.
//!
//! Everything that is not allowed is denied: a rule that is missing, undefined, of another type, or that fails. A
//! handler takes a [`Permit`], which only [`decide`] makes. State changes with [`State::commit`], after the effect.
//!
//! ```
//! use ah_agent_api::agent::StartContainerRequest;
//! use ah_permit::{Policy, State, decide};
//!
//! let policy = Policy::compile("package agent_policy\nStartContainerRequest := input.container_id == \"a\"").unwrap();
//! let mut state = State::new();
//! let request = StartContainerRequest { container_id: "a".into(), ..Default::default() };
//! let permit = decide(&policy, &state, request).unwrap();
//! assert_eq!(permit.container_id, "a");
//! // ... the effect ...
//! let (_request, changes) = permit.into_parts();
//! state.commit(changes).unwrap();
//! ```
#![forbid(unsafe_code)]

mod debug;
mod decision;
mod denial;
mod depth;
mod diff;
mod engine;
mod fragment;
mod ops;
mod recursion;
mod secrets;
mod state;
mod text;

pub use debug::{CHALLENGE_LIFE_MS, DebugExec, Here, MAX_CHALLENGES, MAX_SESSIONS, decide_exec};
pub use decision::{Permit, decide, may_release_keys};
pub use denial::{Denial, MAX_DENIAL_BYTES, Reason};
pub use engine::{
    MAX_COLUMNS, MAX_DEPTH, MAX_LINES, MAX_LOOPS, MAX_MINUS_SIGNS, MAX_NESTING, MAX_POLICY_BYTES,
    MAX_REREADING, MAX_STATEMENTS, MAX_TOP_WORDS, PACKAGE, Policy, PolicyError,
};
pub use fragment::{Extended, FragmentRefused, compose, extend};
pub use ops::{MAX_OPS, MAX_OPS_BYTES};
pub use secrets::{MASK, Secrets};
pub use state::{Changes, MAX_STATE_BYTES, StaleState, State};
