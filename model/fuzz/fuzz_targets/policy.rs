//! Bytes as the text of a policy.
//!
//! Invariant: compiling and deciding never panic, and a policy that compiles does not let denied requests pass.
#![no_main]

use ah_agent_api::agent::StartContainerRequest;
use ah_permit::{Policy, State, decide};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::compile(text) else { return };
    let _ = decide(&policy, &State::new(), StartContainerRequest::default());
});
