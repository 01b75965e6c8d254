//! decide(policy, state, request) -> Permit or Denial with reasons; the Rego engine is private here.
#![forbid(unsafe_code)]
