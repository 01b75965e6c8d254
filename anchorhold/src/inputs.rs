//! The files that a command was given: folders opened, standard input read once, each a manifest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ah_manifest::{Manifest, PodTemplate};
use anyhow::{Context, Result};

use crate::keys::read_text;
use crate::ui::failure;

/// One file, read as a manifest.
pub(crate) struct Input {
    /// Where it is; `-` is standard input.
    pub(crate) path: PathBuf,
    /// Its last component, which does not depend on where it lies.
    pub(crate) name: String,
    /// What it says.
    pub(crate) manifest: Manifest,
}

impl Input {
    /// Whether it came by standard input.
    pub(crate) fn is_standard_input(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// How people call a pod: by the object that declares it.
pub(crate) fn pod_name(pod: &PodTemplate) -> String {
    format!("{} {}", pod.kind(), pod.object_name())
}

/// Reads files; of a folder its `*.yaml` and `*.yml` in the order of their names.
///
/// This is the one place that turns texts into manifests: a set of files that serve one another is read here.
pub(crate) fn read(given: &[PathBuf]) -> Result<Vec<Input>> {
    let mut seen = BTreeSet::new();
    let mut inputs = Vec::new();
    for path in expand(given)? {
        let same = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if !seen.insert(same) {
            return Err(failure(
                format!("{} is given twice", path.display()),
                "name each file once: a folder stands for all its *.yaml and *.yml",
            ));
        }
        let text = read_text(&path)?;
        let manifest = ah_manifest::read_file(&path, &text).map_err(crate::manifest_error)?;
        let name = match path.file_name() {
            Some(name) if path != Path::new("-") => name.to_string_lossy().into_owned(),
            _ => "stdin.yaml".to_owned(),
        };
        inputs.push(Input { path, name, manifest });
    }
    Ok(inputs)
}

/// Reads one file behind others whose ConfigMaps and Secrets it uses, and says how many bytes these are: they are no part
/// of the result.
pub(crate) fn read_with(others: &[PathBuf], path: &Path) -> Result<(Vec<Input>, usize)> {
    if others.is_empty() {
        return Ok((read(&[path.to_path_buf()])?, 0));
    }
    let mut text = String::new();
    for other in others {
        let own = read_text(other)?;
        let manifest = ah_manifest::read_file(other, &own).map_err(crate::manifest_error)?;
        if let Some(pod) = manifest.pods().first() {
            return Err(failure(
                format!(
                    "{} declares {}, expected ConfigMaps and Secrets",
                    other.display(),
                    pod_name(pod)
                ),
                "give a file with pods as the YAML that gets policies",
            ));
        }
        text.push_str(&own);
        text.push_str("\n---\n");
    }
    let before = text.len();
    text.push_str(&read_text(path)?);
    let manifest = ah_manifest::read_file(path, &text).map_err(crate::manifest_error)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let input = Input { path: path.to_path_buf(), name: name.unwrap_or_default(), manifest };
    Ok((vec![input], before))
}

fn expand(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        match path.is_dir() {
            true => files.append(&mut yaml_files(path)?),
            false => files.push(path.clone()),
        }
    }
    Ok(files)
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        false => Ok(files),
        true => Err(failure(
            format!("{} has no *.yaml and no *.yml file", folder.display()),
            "folders below it are not read: name each with -f",
        )),
    }
}
