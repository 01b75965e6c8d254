//! Kubernetes objects read strictly: an unknown field is an error with its path.
//!
//! [`read`] takes the YAML of a manifest; [`Manifest::pods`] are the pods in it, each from a Pod or
//! a controller; [`PodTemplate::to_pod`] joins one with the facts of its images;
//! [`Manifest::edited`] gives the owner's text back with tags pinned and annotations added,
//! comments and order kept. Nothing in a manifest is ignored in silence: [`fields`] says what
//! becomes of each field, and refuses what it does not know.
#![forbid(unsafe_code)]

mod annotations;
mod containers;
mod edit;
mod env;
mod error;
pub mod fields;
mod identity;
mod kinds;
mod manifest;
mod quantity;
mod scalar;
mod schema;
mod template;
mod yaml;

pub use annotations::{EXEC_ANNOTATION, LOGS_ANNOTATION, RELEASE_SOCKET_ANNOTATION};
pub use edit::Edits;
pub use error::{ManifestError, Place, Problem, YamlProblem};
pub use manifest::{Manifest, read, read_file};
pub use template::PodTemplate;
pub use yaml::MAX_TEXT_BYTES;

#[cfg(test)]
mod tests;
