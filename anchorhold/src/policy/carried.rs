//! The policies that a file carries, in whichever form.

use std::path::Path;

use ah_policy::{AksPolicy, InitData, PolicyDocument};
use anyhow::{Context, Result};

use crate::inputs::pod_name;
use crate::keys::read_text;
use crate::ui::failure;

/// One policy.
pub(crate) struct Carried {
    /// The pod, as `Deployment web`; the file's name where it is a policy alone.
    pub(crate) name: String,
    /// The document.
    pub(crate) document: PolicyDocument,
}

/// Reads every policy of a file: YAML with annotations, a policy text, or an initdata document.
pub(crate) fn read(file: &Path) -> Result<Vec<Carried>> {
    let text = read_text(file)?;
    let name = file.display().to_string();
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
        _ => of_yaml(file, &text),
    }
}

/// The first line that says something in Rego or TOML.
fn first_line(text: &str) -> &str {
    let lines = text.lines().map(str::trim);
    lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default()
}

fn of_yaml(file: &Path, text: &str) -> Result<Vec<Carried>> {
    let manifest = ah_manifest::read_file(file, text).map_err(crate::manifest_error)?;
    if manifest.pods().is_empty() {
        return Err(failure(
            format!("{} has no pod", file.display()),
            "a policy is carried by the annotations of a pod or of a controller's pod template",
        ));
    }
    let pods = manifest.pods().iter().map(|pod| {
        let document = PolicyDocument::from_annotations(pod.annotations());
        let document = document.map_err(|error| no_policy(file, &pod_name(pod), &error))?;
        Ok(Carried { name: pod_name(pod), document })
    });
    pods.collect()
}

fn no_policy(file: &Path, pod: &str, error: &ah_policy::DocumentError) -> anyhow::Error {
    failure(
        format!("{}: {pod}: {error}", file.display()),
        format!(
            "`anchorhold policy generate -f {} -o out.yaml` adds the annotation",
            file.display()
        ),
    )
}

/// The policies of the named object, or all.
pub(crate) fn read_some(file: &Path, pod: Option<&str>) -> Result<Vec<Carried>> {
    let all = read(file)?;
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
pub(crate) fn read_one(file: &Path, pod: Option<&str>) -> Result<Carried> {
    let mut some = read_some(file, pod)?;
    match (some.pop(), some.len()) {
        (Some(one), 0) => Ok(one),
        (_, more) => Err(failure(
            format!("{} has {} policies, expected one", file.display(), more + 1),
            "--pod NAME says which",
        )),
    }
}
