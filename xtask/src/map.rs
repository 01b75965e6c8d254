//! The map of crates in ARCHITECTURE.md: each crate has one row, which says what the crate's own first line says.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, Package, TargetKind};

use crate::cmd::root;

const FILE: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Crates";

/// The number of rows checked, and what is wrong with the map.
pub(crate) fn check(metadata: &Metadata) -> Result<(usize, Vec<String>)> {
    let text = fs::read_to_string(root().join(FILE)).context(FILE)?;
    let rows = rows(&text)?;
    let mut sentences = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().context("a manifest without a folder")?;
        let folder = folder.strip_prefix(&metadata.workspace_root)?;
        sentences.insert(folder.to_string(), sentence(package)?);
    }
    Ok((rows.len(), differences(&rows, &sentences)))
}

/// What a crate says of itself: the first line of its library's documentation, or of its program's where it has no library.
fn sentence(package: &Package) -> Result<String> {
    let is_library = |kind: &TargetKind| *kind == TargetKind::Lib;
    let library = package.targets.iter().find(|target| target.kind.iter().any(is_library));
    let program = || package.targets.iter().find(|target| target.src_path.ends_with("src/main.rs"));
    let target = library.or_else(program);
    let file = &target.with_context(|| format!("{} has no src/main.rs", package.name))?.src_path;
    let text = fs::read_to_string(file).with_context(|| file.to_string())?;
    let first = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    Ok(first.with_context(|| format!("{file}: its first line is no `//!` sentence"))?.to_owned())
}

/// Folders and sentences of the map's table.
fn rows(text: &str) -> Result<Vec<(&str, &str)>> {
    let section = text.split_once(HEADING).with_context(|| format!("{FILE} has no '{HEADING}'"))?.1;
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells = line.strip_prefix("| `").and_then(|line| line.strip_suffix(" |"));
        let Some(row) = cells.and_then(|cells| cells.split_once("` | ")) else {
            bail!("{FILE}: expected '| `folder` | sentence |', found '{line}'");
        };
        rows.push(row);
    }
    Ok(rows)
}

fn differences(rows: &[(&str, &str)], sentences: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (folder, sentence) in sentences {
        let of_it = rows.iter().filter(|(found, _)| found == folder).map(|(_, said)| *said);
        match of_it.collect::<Vec<_>>().as_slice() {
            [said] if said == sentence => {}
            [said] => wrong.push(format!(
                "{FILE} says of {folder} '{said}', expected the crate's first line '{sentence}'"
            )),
            found => wrong.push(format!("{FILE} has {} rows of {folder}, expected 1", found.len())),
        }
    }
    let unknown = rows.iter().filter(|(folder, _)| !sentences.contains_key(*folder));
    wrong.extend(unknown.map(|(folder, _)| format!("{FILE} has a row of {folder}, no crate")));
    wrong
}

#[cfg(test)]
mod tests {
    use cargo_metadata::MetadataCommand;

    use super::*;

    #[track_caller]
    fn check(rows: &[(&str, &str)], expect: &[&str]) {
        let crates = [("a/b", "Does this."), ("c", "Does that.")];
        let crates = crates.map(|(folder, sentence)| (folder.to_owned(), sentence.to_owned()));
        let found = differences(rows, &crates.into());
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, words) in found.iter().zip(expect) {
            assert!(found.contains(words), "{found}");
        }
    }

    #[test]
    fn each_crate_has_one_row_that_says_what_the_crate_says() {
        let (b, c) = (("a/b", "Does this."), ("c", "Does that."));
        check(&[b, c], &[]);
        check(&[b, ("c", "Does that")], &["of c 'Does that', expected the crate's first line"]);
        check(&[b], &["0 rows of c"]);
        check(&[b, c, c], &["2 rows of c"]);
        check(&[b, c, ("d", "Gone.")], &["a row of d, no crate"]);
    }

    #[test]
    fn rows_are_those_of_the_maps_table_only() {
        let text = "| `x` | y |\n## Crates\n\n| crate | owns |\n|---|---|\n| `a` | A `b` | c. |\n\n## More\n| `z` | z |\n";
        assert_eq!(rows(text).unwrap(), [("a", "A `b` | c.")]);
        assert!(rows("## Crates\n| `a` A\n").is_err());
        assert!(rows("| `a` | A |").is_err());
    }

    #[test]
    fn the_map_as_it_stands_is_right() {
        let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
        let (rows, wrong) = super::check(&metadata).unwrap();
        assert!(rows > 50, "only {rows} rows seen");
        assert_eq!(wrong, Vec::<String>::new());
    }
}
