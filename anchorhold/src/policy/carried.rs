//! The policies that a file carries, in whichever form.

use std::path::Path;

use ah_manifest::{Carrier, NamedText};
use ah_policy::{AksPolicy, InitData, PolicyDocument};
use anyhow::{Context, Result};

use crate::cli::policy::Kinds;
use crate::inputs;
use crate::ui::failure;

/// One policy.
pub(crate) struct Carried {
    /// The pod, as `Deployment web`; the file's name where it is a policy alone.
    pub(crate) name: String,
    /// The document.
    pub(crate) document: PolicyDocument,
}

/// Reads every policy of a file: YAML with annotations, a policy text, or an initdata document.
pub(crate) fn read(file: &Path, kinds: &Kinds) -> Result<Vec<Carried>> {
    let NamedText { name, text } = inputs::text(file)?;
    let alone = |document| vec![Carried { name: name.clone(), document }];
    match first_line(&text) {
        line if line.starts_with("package ") => {
            Ok(alone(PolicyDocument::Aks(AksPolicy::new(&text)?)))
        }
        line if line.starts_with("version") && line.contains('=') => {
            let initdata = InitData::parse(text.as_bytes())
                .with_context(|| format!("initdata document {name}"))?;
            Ok(alone(PolicyDocument::InitData(initdata)))
        }
        _ => of_yaml(file, NamedText { name, text }, kinds),
    }
}

/// The first line that says something in Rego or TOML.
fn first_line(text: &str) -> &str {
    let lines = text.lines().map(str::trim);
    lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default()
}

fn of_yaml(file: &Path, text: NamedText, kinds: &Kinds) -> Result<Vec<Carried>> {
    let carriers = carriers(file, text, kinds)?;
    let one = |carrier: &Carrier| {
        let name = format!("{} {}", carrier.kind, carrier.object_name);
        let document = document(file, &name, carrier)?;
        Ok(Carried { name, document })
    };
    carriers.iter().map(one).collect()
}

/// The pods of a file, at least one, with their annotations: what they take values from may be elsewhere.
fn carriers(file: &Path, text: NamedText, kinds: &Kinds) -> Result<Vec<Carrier>> {
    let carriers = ah_manifest::carriers(text, &inputs::rules(kinds)?);
    let carriers = carriers.map_err(crate::manifest_error)?;
    match carriers.is_empty() {
        false => Ok(carriers),
        true => Err(failure(
            format!("{} has no pod", file.display()),
            "a policy is carried by the annotations of a pod or of a controller's pod template",
        )),
    }
}

fn document(file: &Path, pod: &str, carrier: &Carrier) -> Result<PolicyDocument> {
    PolicyDocument::from_annotations(&carrier.annotations).map_err(|error| {
        failure(
            format!("{}: {pod}: {error}", file.display()),
            format!(
                "`anchorhold policy generate -f {} -o out.yaml` adds the annotation",
                file.display()
            ),
        )
    })
}

/// The policies of the named object, or all.
pub(crate) fn read_some(file: &Path, pod: Option<&str>, kinds: &Kinds) -> Result<Vec<Carried>> {
    let all = read(file, kinds)?;
    let Some(pod) = pod else { return Ok(all) };
    let names = all.iter().map(|carried| carried.name.as_str()).collect::<Vec<_>>().join(", ");
    let is_it = |name: &str| name == pod || name.split_once(' ').is_some_and(|(_, own)| own == pod);
    let some: Vec<Carried> = all.into_iter().filter(|carried| is_it(&carried.name)).collect();
    match some.is_empty() {
        false => Ok(some),
        true => Err(failure(
            format!("{} has no pod {pod:?}", file.display()),
            format!("it has {names}"),
        )),
    }
}

/// The one policy that a question is about.
pub(crate) fn read_one(file: &Path, pod: Option<&str>, kinds: &Kinds) -> Result<Carried> {
    let mut some = read_some(file, pod, kinds)?;
    match (some.pop(), some.len()) {
        (Some(one), 0) => Ok(one),
        (_, more) => Err(failure(
            format!("{} has {} policies, expected one", file.display(), more + 1),
            "--pod NAME says which",
        )),
    }
}
