//! Pod manifest and image facts to a policy; dry run of every request; show and explain.
//!
//! The rules are one text for every pod (`rules.rego`); what differs is `policy_data`, made from the requests that
//! [`ah_pod::requests`] gives for placeholder values. Equal pods give equal bytes.
#![forbid(unsafe_code)]

mod data;
mod dry_run;
mod explain;
mod generate;
mod show;
mod template;
mod write;

pub use dry_run::{ends, honest_requests, stand_in_host};
pub use explain::{ExplainError, Explained, explain};
pub use generate::{GenerateError, Generated, Options, generate};
pub use show::{Shown, ShownContainer, show};
