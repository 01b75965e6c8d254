//! Kubernetes objects read strictly: an unknown field is an error with its path.
//!
//! [`read`] takes the YAML of a manifest, [`read_set`] several that serve one another;
//! [`Manifest::pods`] are the pods in it, each from a Pod, a controller, an item of a list, or an
//! object of another kind by a rule ([`Rules`]); [`PodTemplate::to_pod`] joins one with the facts of
//! its images; [`Manifest::edited`] gives the owner's text back with tags pinned and annotations
//! added, comments and order kept. Nothing in a manifest is ignored in silence: [`fields`] says what
//! becomes of each field, and refuses what it does not know.
#![forbid(unsafe_code)]

mod annotations;
mod carrier;
mod checks;
mod choices;
mod containers;
mod edit;
mod env;
mod error;
pub mod fields;
mod identity;
mod kinds;
mod manifest;
mod objects;
mod options;
mod quantity;
mod rules;
mod scalar;
mod schema;
mod services;
mod settings;
mod source;
mod sources;
mod strict;
mod template;
mod token;
mod volumes;
mod workload;
mod yaml;

pub use annotations::{
    DEBUG_KEY_ANNOTATION, EXEC_ANNOTATION, FRAGMENTS_ANNOTATION, LOGS_ANNOTATION,
    MUTABLE_ANNOTATION, RELEASE_SOCKET_ANNOTATION, RUNS_ON_ANNOTATION, SERVICES_ANNOTATION,
    STDIN_ANNOTATION, TERMINATION_LOG_ANNOTATION, UNPINNED_ANNOTATION, WHOLE_POD_ANNOTATION,
};
pub use carrier::{Carrier, carriers};
pub use edit::Edits;
pub use error::{ManifestError, Place, Problem, YamlProblem};
pub use kinds::page as kinds_page;
pub use manifest::{Manifest, ManifestSet, read, read_file, read_one, read_set};
pub use options::{Incomplete, Platform, ReadOptions, UnknownPods};
pub use rules::Rules;
pub use source::{LoadError, NamedText, load};
pub use template::PodTemplate;
pub use yaml::MAX_TEXT_BYTES;

#[cfg(test)]
mod tests;
