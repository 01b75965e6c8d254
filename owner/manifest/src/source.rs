//! Texts to read, from a file, a folder or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::yaml::MAX_TEXT_BYTES;

/// A text and what errors call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedText {
    /// File name, or `-` for standard input.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why a text could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read, or is not UTF-8.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is longer than a manifest may be.
    #[error("{} exceeds {MAX_TEXT_BYTES} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A folder without a manifest.
    #[error("{} has no file that ends in .yaml, .yml or .json", path.display())]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
}

/// The texts of a place: a file; the manifests of a folder, not of those in it, in the order of
/// their names (endings `.yaml`, `.yml` and `.json`, as `kubectl -f DIR` takes them); `-` is
/// standard input.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path) -> Result<Vec<NamedText>, LoadError> {
    if path == Path::new("-") {
        return text(path, &mut io::stdin()).map(|text| vec![text]);
    }
    let failed = |source| LoadError::Read { path: path.into(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return open(path).map(|text| vec![text]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(LoadError::Empty { path: path.into() }),
        false => files.iter().map(|file| open(file)).collect(),
    }
}

fn open(path: &Path) -> Result<NamedText, LoadError> {
    let file = fs::File::open(path);
    text(path, &mut file.map_err(|source| LoadError::Read { path: path.into(), source })?)
}

fn text(path: &Path, from: &mut dyn Read) -> Result<NamedText, LoadError> {
    let mut text = String::new();
    let most = u64::try_from(MAX_TEXT_BYTES).unwrap_or(u64::MAX);
    from.take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|source| LoadError::Read { path: path.into(), source })?;
    match text.len() > MAX_TEXT_BYTES {
        true => Err(LoadError::TooLarge { path: path.into() }),
        false => Ok(NamedText { name: path.display().to_string(), text }),
    }
}
