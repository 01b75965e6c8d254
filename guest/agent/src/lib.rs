//! The agent: frame to request to permit to effect.
//!
//! The host sends requests in the Kata agent's API; each is decoded strictly, decided by the owner's policy, checked by rules that no policy
//! can change, carried out, and only then remembered. Everything the host sends is taken to be an attack.
#![forbid(unsafe_code)]

pub mod cli;
pub mod console;
pub mod effects;
pub mod failure;
pub mod gate;
pub mod guest;
pub mod keys;
pub mod serve;
pub mod server;

/// What the agent calls itself towards the host.
pub const AGENT_VERSION: &str = concat!("anchorhold-", env!("CARGO_PKG_VERSION"));
