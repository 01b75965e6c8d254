//! The files that a command was given: folders opened, standard input read once, all of them read together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ah_manifest::{
    Incomplete, Manifest, NamedText, Platform, PodTemplate, ReadOptions, Rules, UnknownPods,
};
use anyhow::Result;

use crate::cli::policy::{Kinds, Reading};
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

/// The shipped rules for kinds, and those of these files.
pub(crate) fn rules(kinds: &Kinds) -> Result<Rules> {
    kinds.kinds.iter().try_fold(Rules::shipped(), |rules, file| {
        let text = read_text(file)?;
        rules.with_file(&text).map_err(|error| crate::manifest_error(error).context(show(file)))
    })
}

/// How the options want files to be read: for pods that do not say what they run on, `platform`.
pub(crate) fn options(reading: &Reading, platform: Platform) -> Result<ReadOptions> {
    Ok(ReadOptions {
        rules: rules(&reading.kinds)?,
        unknown_pods: match reading.pass_unknown_pods {
            true => UnknownPods::PassThrough,
            false => UnknownPods::Refuse,
        },
        incomplete: match reading.accept_incomplete {
            true => Incomplete::Accept,
            false => Incomplete::Refuse,
        },
        platform,
    })
}

/// Reads files together, so that each finds what it names in the others: of a folder its `*.yaml`, `*.yml` and `*.json`.
/// Of `with` the objects are taken, and no pod; they are no part of the result.
///
/// This is the one place that turns texts into manifests for policies.
pub(crate) fn read(
    given: &[PathBuf],
    with: &[PathBuf],
    options: &ReadOptions,
) -> Result<Vec<Input>> {
    let mut seen = BTreeSet::new();
    let files = expand(given, &mut seen)?;
    let beside = expand(with, &mut seen)?;
    let texts = files.iter().chain(&beside).cloned().collect();
    let set = ah_manifest::read_set(texts, options).map_err(crate::manifest_error)?;
    let named = set.into_files().into_iter();
    let mut manifests: BTreeMap<String, Manifest> =
        named.filter_map(|file| Some((file.name()?.to_owned(), file))).collect();
    for text in &beside {
        if let Some(pod) =
            manifests.remove(&text.name).as_ref().and_then(|file| file.pods().first())
        {
            return Err(failure(
                format!("{} declares {}, expected objects that pods use", text.name, pod_name(pod)),
                "give a file with pods as the YAML that gets policies",
            ));
        }
    }
    let files = files.into_iter().filter_map(|text| {
        let manifest = manifests.remove(&text.name)?;
        let path = PathBuf::from(text.name);
        let name = match path.file_name() {
            Some(name) if path != Path::new("-") => name.to_string_lossy().into_owned(),
            _ => "stdin.yaml".to_owned(),
        };
        Some(Input { path, name, manifest })
    });
    Ok(files.collect())
}

/// The texts of files, each once however it is named.
fn expand(given: &[PathBuf], seen: &mut BTreeSet<PathBuf>) -> Result<Vec<NamedText>> {
    let mut all = Vec::new();
    for place in given {
        for text in ah_manifest::load(place).map_err(load_error)? {
            // A name is shown, compared and written by its text.
            if text.name.contains(char::REPLACEMENT_CHARACTER) {
                let what = format!("the name of {} is not UTF-8", text.name);
                return Err(failure(what, "give the file another name"));
            }
            let path = PathBuf::from(&text.name);
            if !seen.insert(fs::canonicalize(&path).unwrap_or(path)) {
                return Err(failure(
                    format!("{} is given twice", text.name),
                    "name each file once: a folder stands for all its *.yaml, *.yml and *.json",
                ));
            }
            all.push(text);
        }
    }
    Ok(all)
}

/// The text of one file for a reader of policies.
pub(crate) fn text(file: &Path) -> Result<NamedText> {
    Ok(NamedText { name: show(file), text: read_text(file)? })
}

fn load_error(error: ah_manifest::LoadError) -> anyhow::Error {
    match &error {
        ah_manifest::LoadError::Empty { .. } => {
            failure(error, "folders below it are not read: name each with -f")
        }
        _ => error.into(),
    }
}

fn show(file: &Path) -> String {
    file.display().to_string()
}
