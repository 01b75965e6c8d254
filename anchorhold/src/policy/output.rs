//! Where generated files go, written whole or not at all.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::policy::Generate;
use crate::inputs::Input;
use crate::policy::generate::written;
use crate::ui::failure;

/// Where the result goes.
pub(crate) enum Target {
    /// Standard output.
    Standard,
    /// A file, or a folder for several.
    Path(PathBuf),
    /// Where each file was read.
    InPlace,
}

impl Target {
    pub(crate) fn of(options: &Generate) -> Result<Self> {
        let target = match (&options.output, options.in_place) {
            (None, false) => Self::Standard,
            (None, true) => Self::InPlace,
            (Some(path), _) if path == Path::new("-") => Self::Standard,
            (Some(path), _) => Self::Path(path.clone()),
        };
        match (&target, options.json) {
            (Self::Standard, true) => Err(failure(
                "--json and the YAML would both be on standard output",
                "-o FILE or --in-place puts the YAML elsewhere",
            )),
            _ => Ok(target),
        }
    }
}

/// Writes the new texts of the inputs.
pub(crate) fn yaml(target: &Target, inputs: &[Input], texts: &[String]) -> Result<()> {
    match target {
        Target::Standard => {
            print(joined(texts).as_bytes())?;
            Ok(())
        }
        Target::Path(_) => {
            let named = inputs.iter().zip(texts);
            files(
                target,
                named
                    .map(|(input, text)| (input.name.clone().into(), text.clone().into_bytes()))
                    .collect(),
            )
        }
        Target::InPlace => {
            inputs.iter().zip(texts).try_for_each(|(input, text)| in_place(input, text))
        }
    }
}

/// Several files as one stream of documents.
fn joined(texts: &[String]) -> String {
    let mut out = String::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        if !out.is_empty() {
            if !out.ends_with('\n') {
                out.push('\n');
            }
            if !text.starts_with("---") {
                out.push_str("---\n");
            }
        }
        out.push_str(text);
    }
    out
}

fn in_place(input: &Input, text: &str) -> Result<()> {
    if input.is_standard_input() {
        return Err(failure("--in-place cannot write standard input", "leave it out, or give -o"));
    }
    rewrite(&input.path, text)
}

/// Writes a file where it is, when something changed.
pub(crate) fn rewrite(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        eprintln!("unchanged: {}", path.display());
        return Ok(());
    }
    write(path, text.as_bytes())?;
    written(path);
    Ok(())
}

/// One file at the path, several in a folder of that name.
pub(crate) fn files(target: &Target, files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    match (target, files.as_slice()) {
        (Target::Path(path), all) if all.len() != 1 || is_folder(path) => folder(path, all),
        (Target::Path(path), [(_, bytes)]) => {
            write(path, bytes)?;
            written(path);
            Ok(())
        }
        (_, [(_, bytes)]) => print(bytes),
        (_, all) => Err(failure(
            format!("there are {} policies, and standard output takes one", all.len()),
            "-o FOLDER takes a file for each",
        )),
    }
}

fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.to_string_lossy().ends_with('/')
}

fn folder(path: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let mut names = BTreeSet::new();
    if let Some((name, _)) = files.iter().find(|(name, _)| !names.insert(name)) {
        return Err(failure(
            format!("two files would be {} in {}", name.display(), path.display()),
            "generate them one after the other into folders of their own, or use --in-place",
        ));
    }
    fs::create_dir_all(path).with_context(|| format!("making folder {}", path.display()))?;
    for (name, bytes) in files {
        let file = path.join(name);
        write(&file, bytes)?;
        written(&file);
    }
    Ok(())
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("writing standard output")
}

/// Writes a file beside its place and moves it there, so that nobody reads half of it. What is no regular file, such
/// as /dev/stdout, is written as it is. A link stays, its target is replaced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let before = fs::metadata(&place).ok();
    if before.as_ref().is_some_and(|found| !found.is_file()) {
        return fs::write(&place, bytes).with_context(writing);
    }
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As a file that a program makes is, but for what the user's mask takes away.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    builder.prefix(".anchorhold-").permissions(mode);
    let mut file = builder.tempfile_in(parent).with_context(writing)?;
    file.write_all(bytes).with_context(writing)?;
    if let Some(before) = before {
        file.as_file().set_permissions(before.permissions()).with_context(writing)?;
    }
    file.persist(&place).map_err(|error| error.error).with_context(writing)?;
    Ok(())
}
