//! Who carries annotations in a text: for those who read a policy, not the pod.

use std::collections::BTreeMap;

use crate::error::ManifestError;
use crate::kinds::{self, Object};
use crate::manifest::parse;
use crate::objects::objects;
use crate::options::{Incomplete, ReadOptions, UnknownPods};
use crate::rules::Rules;
use crate::source::NamedText;

/// A pod as its annotations' bearer. Objects that it takes values from need not be at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Kind of the object that declares it.
    pub kind: String,
    /// Name of the object that declares it.
    pub object_name: String,
    /// The pod's annotations, as written.
    pub annotations: BTreeMap<String, String>,
}

/// The pods of a text with their annotations. Objects are read strictly, pods are not joined with anything.
///
/// # Errors
/// [`ManifestError`] for a text that is not YAML, and for an object that is not of its kind.
pub fn carriers(text: NamedText, rules: &Rules) -> Result<Vec<Carrier>, ManifestError> {
    let options = ReadOptions {
        rules: rules.clone(),
        unknown_pods: UnknownPods::PassThrough,
        incomplete: Incomplete::Accept,
        ..ReadOptions::default()
    };
    let file = parse(Some(text.name), text.text)?;
    let mut carriers = Vec::new();
    for object in objects(&file.documents).map_err(|error| file.in_file(error))? {
        let read = kinds::object(&object.value, &options)
            .map_err(crate::strict::below(&object.path))
            .map_err(|error| file.located(error, object.document))?;
        let Object::Workloads(workloads) = read else { continue };
        carriers.extend(workloads.into_iter().map(|workload| Carrier {
            kind: workload.kind,
            object_name: workload.object_name,
            annotations: workload.annotations,
        }));
    }
    Ok(carriers)
}
