//! Pod manifest and image facts to a policy; dry run of every request; show, explain, test and diff.
//!
//! The rules are one text for every pod (`rules/`, joined by subject); what differs is `policy_data`, made from the requests that
//! [`ah_pod::requests`] gives for placeholder values. Equal pods give equal bytes.
#![forbid(unsafe_code)]

mod agent;
mod bounds;
mod cases;
mod data;
mod diff;
mod dry_run;
mod explain;
mod fragment;
mod gather;
mod generate;
mod honest;
mod kata;
mod platforms;
mod request_json;
mod sealed;
mod show;
mod sidecar;
mod template;
mod trees;
mod write;

pub use agent::Agent;
pub use cases::{Outcome, Tested, honest_cases, test};
pub use diff::{Change, ContainerDiff, Diff, Presence, diff};
pub use dry_run::{ends, honest_requests, honest_requests_for, stand_in_host, warm_up};
pub use explain::{ExplainError, Explained, Question, answer, explain};
pub use fragment::{FragmentMakeError, make_fragment};
pub use generate::{GenerateError, Generated, Options, generate, generate_for_platforms};
pub use sealed::has_sealed;
pub use show::{
    Shown, ShownContainer, ShownEnv, ShownFile, ShownMount, ShownPlatform, ShownVolume, show,
};
