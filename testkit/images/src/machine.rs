//! Layers of real files: those of this machine's Debian packages, in the packages' order of names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::random::random_layer;
use crate::tar_writer::{Entry, TarBuilder};

const PACKAGES: &str = "/var/lib/dpkg/info";
/// Larger files are left out, to keep layers alike.
const MAX_FILE_BYTES: u64 = 20_000_000;

/// Regular files and links below `/usr` of all installed packages, package by package, each once.
///
/// # Errors
/// When the package database cannot be read.
pub fn package_files() -> io::Result<Vec<PathBuf>> {
    let mut lists: Vec<PathBuf> = fs::read_dir(PACKAGES)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "list"))
        .collect();
    lists.sort();
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for list in lists {
        let text = fs::read_to_string(list)?;
        let mut paths: Vec<&str> = text.lines().filter(|path| path.starts_with("/usr/")).collect();
        paths.sort_unstable();
        for path in paths {
            let path = PathBuf::from(path);
            let fits = fs::symlink_metadata(&path).is_ok_and(|metadata| {
                metadata.is_symlink() || (metadata.is_file() && metadata.len() <= MAX_FILE_BYTES)
            });
            if fits && seen.insert(path.clone()) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Writes a layer of about `bytes` bytes of the next `files`; made-up ones follow when they run out.
///
/// # Errors
/// When `out` fails.
pub fn machine_layer(
    out: &mut impl Write,
    first: &[Entry],
    files: &mut impl Iterator<Item = PathBuf>,
    bytes: u64,
) -> io::Result<()> {
    let mut tar = TarBuilder::new(&mut *out);
    for entry in first {
        tar.push(entry)?;
    }
    let (mut written, mut folders) = (0, BTreeSet::new());
    while written < bytes {
        let Some(path) = files.next() else {
            random_layer(tar.into_inner(), bytes - written)?;
            return Ok(());
        };
        let Ok(entry) = entry(&path) else { continue };
        for folder in missing_folders(&path, &mut folders) {
            tar.push(&Entry::dir(folder))?;
        }
        tar.push(&entry.0)?;
        written += entry.1;
    }
    tar.finish()?;
    Ok(())
}

/// The entry of a file, and how many bytes it has.
fn entry(path: &Path) -> io::Result<(Entry, u64)> {
    let name = path.to_string_lossy().trim_start_matches('/').to_owned();
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok((Entry::symlink(name, fs::read_link(path)?.to_string_lossy().as_bytes()), 0));
    }
    let mode = metadata.permissions().mode() & 0o755;
    Ok((Entry::file(name, fs::read(path)?).mode(mode), metadata.len()))
}

fn missing_folders(path: &Path, known: &mut BTreeSet<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for folder in path.ancestors().skip(1) {
        let name = folder.to_string_lossy().trim_start_matches('/').to_owned();
        if name.is_empty() || !known.insert(name.clone()) {
            break;
        }
        missing.push(name + "/");
    }
    missing.reverse();
    missing
}
