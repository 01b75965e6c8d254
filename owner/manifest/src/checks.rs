//! What values must be, and the errors that say so.

use std::collections::BTreeSet;

use crate::error::{ManifestError, Place, Problem};
use crate::quantity::Quantity;
use crate::template::{PodContext, all_containers};

/// Names that end up in paths, host names and annotations.
pub(crate) fn check_names(context: &PodContext<'_>, path: &str) -> Result<(), ManifestError> {
    let spec = context.spec;
    if spec.containers.is_empty() {
        return Err(missing(&format!("{path}.containers"), "a container"));
    }
    let mut seen = BTreeSet::new();
    for (container_path, container) in all_containers(spec) {
        let path = format!("{path}.{container_path}.name");
        require(&path, &container.name, "a DNS label", is_dns_label)?;
        if !seen.insert(&container.name) {
            return Err(value(&path, &container.name, "a name that no other container has"));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("{path}.volumes[{index}].name");
        require(&path, &volume.name, "a DNS label", is_dns_label)?;
        if !seen.insert(&volume.name) {
            return Err(value(&path, &volume.name, "a name that no other volume has"));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            require(&format!("{path}.{field}"), name, "a DNS label", is_dns_label)?;
        }
    }
    if let Some(name) = context.name.as_literal() {
        require("metadata.name", name, "a DNS name", is_dns_name)?;
    }
    if let Some(namespace) = &context.namespace {
        require("metadata.namespace", namespace, "a DNS label", is_dns_label)?;
    }
    Ok(())
}

/// RFC 1123 label.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| alphanumeric(c) || c == '-')
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
}

/// RFC 1123 subdomain.
pub(crate) fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// Whole bytes of a quantity.
pub(crate) fn bytes(path: &str, text: &str) -> Result<u64, ManifestError> {
    Quantity::parse(text)
        .and_then(Quantity::units)
        .ok_or_else(|| value(path, text, "a quantity of bytes"))
}

pub(crate) fn require(
    path: &str,
    found: &str,
    expected: &str,
    fine: impl Fn(&str) -> bool,
) -> Result<(), ManifestError> {
    match fine(found) {
        true => Ok(()),
        false => Err(value(path, found, expected)),
    }
}

pub(crate) fn value(path: &str, found: &str, expected: &str) -> ManifestError {
    fail(path, Problem::Value { found: found.into(), expected: expected.into() })
}

pub(crate) fn missing(path: &str, expected: &str) -> ManifestError {
    fail(path, Problem::Missing { expected: expected.into() })
}

pub(crate) fn fail(path: &str, problem: Problem) -> ManifestError {
    ManifestError::new(Place { path: path.into(), ..Place::default() }, problem)
}
