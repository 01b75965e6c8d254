//! The trusted computing base of the guest in numbers, kept as a snapshot (tcb.json) so that growth is seen in review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::cmd::{root, target};

const SNAPSHOT: &str = "tcb.json";
/// What the measured guest runs: package and binary.
const BINARIES: &[(&str, &str)] =
    &[("ah-init", "anchorhold-init"), ("ah-agent", "anchorhold-agent")];
/// Sizes and lines may move by this much before the snapshot must be written anew, percent.
const SLACK_PERCENT: u64 = 3;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write tcb.json anew instead of comparing with it
    #[arg(long)]
    write: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// The figures of one guest binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// Packages linked into it, first-party ones included.
    packages: u64,
    /// First-party lines of Rust that are neither blank, comment nor test.
    first_party_lines: u64,
    /// First-party unsafe blocks, functions and impls.
    first_party_unsafe: u64,
    /// Bytes of the stripped static binary.
    size_bytes: u64,
}

type Snapshot = BTreeMap<String, Figures>;

/// The `tcb` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.write {
        let text = serde_json::to_string_pretty(&measure()?)? + "\n";
        fs::write(root().join(SNAPSHOT), &text)?;
    } else {
        eprintln!("tcb: {}", check()?);
    }
    let figures = measure()?;
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!(
        "{:20} {:>9} {:>12} {:>8} {:>12}",
        "binary", "packages", "lines (ours)", "unsafe", "bytes"
    );
    for (name, f) in &figures {
        let Figures { packages, first_party_lines, first_party_unsafe, size_bytes } = f;
        println!(
            "{name:20} {packages:>9} {first_party_lines:>12} {first_party_unsafe:>8} {size_bytes:>12}"
        );
    }
    Ok(())
}

/// Compares the figures with the snapshot; says what moved.
pub(crate) fn check() -> Result<String> {
    let text = fs::read_to_string(root().join(SNAPSHOT)).context("reading tcb.json")?;
    let snapshot: Snapshot = serde_json::from_str(&text).context("tcb.json")?;
    let moved = differences(&snapshot, &measure()?);
    if moved.is_empty() {
        return Ok("as in tcb.json".into());
    }
    bail!(
        "{}\nhint: if this growth is meant, run `cargo xtask tcb --write` and commit tcb.json",
        moved.join("\n")
    )
}

fn differences(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter_map(|name| difference(name, old.get(name), new.get(name))).collect()
}

fn difference(name: &str, old: Option<&Figures>, new: Option<&Figures>) -> Option<String> {
    let (Some(old), Some(new)) = (old, new) else {
        return Some(format!("{name}: in one of tcb.json and the tree only"));
    };
    let near =
        |a: u64, b: u64| a.abs_diff(b).saturating_mul(100) <= a.saturating_mul(SLACK_PERCENT);
    let same = old.packages == new.packages
        && old.first_party_unsafe == new.first_party_unsafe
        && near(old.first_party_lines, new.first_party_lines)
        && near(old.size_bytes, new.size_bytes);
    (!same).then(|| format!("{name}: found {new:?}, tcb.json has {old:?}"))
}

fn measure() -> Result<Snapshot> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .other_options(["--filter-platform".into(), "x86_64-unknown-linux-gnu".into()])
        .exec()?;
    BINARIES
        .iter()
        .map(|(package, binary)| Ok((binary.to_string(), figures(&metadata, package, binary)?)))
        .collect()
}

fn figures(metadata: &Metadata, package: &str, binary: &str) -> Result<Figures> {
    let linked = linked_packages(metadata, package)?;
    let mut lines = 0;
    let mut unsafe_count = 0;
    for id in &linked {
        let package = &metadata[id];
        if package.source.is_none() {
            let dir = package.manifest_path.as_std_path().parent().context("manifest path")?;
            let (l, u) = count_sources(&dir.join("src"))?;
            lines += l;
            unsafe_count += u;
        }
    }
    let file = target().join("guest/x86_64-unknown-linux-gnu/guest").join(binary);
    let size = fs::metadata(&file)
        .with_context(|| format!("{} is not built; run `cargo xtask setup`", file.display()))?
        .len();
    Ok(Figures {
        packages: linked.len() as u64,
        first_party_lines: lines,
        first_party_unsafe: unsafe_count,
        size_bytes: size,
    })
}

/// Packages reached over normal dependencies, proc macros and what only they use left out.
fn linked_packages(metadata: &Metadata, package: &str) -> Result<BTreeSet<PackageId>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata without a resolve graph")?;
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let start = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == package);
    let mut open = vec![start.with_context(|| format!("no package {package}"))?.id.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let macro_only = metadata[&id].targets.iter().any(|t| t.is_proc_macro());
        if macro_only || !seen.insert(id.clone()) {
            continue;
        }
        for dep in &nodes[&id].deps {
            if dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal) {
                open.push(dep.pkg.clone());
            }
        }
    }
    Ok(seen)
}

fn count_sources(dir: &Path) -> Result<(u64, u64)> {
    let mut total = (0, 0);
    for entry in WalkDir::new(dir) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type().is_file() && name.ends_with(".rs") && !is_tests(&name) {
            let (lines, unsafes) = count(&fs::read_to_string(entry.path())?);
            total.0 += lines;
            total.1 += unsafes;
        }
    }
    Ok(total)
}

/// Files that only a `#[cfg(test)]` module names.
fn is_tests(name: &str) -> bool {
    name == "tests.rs" || name.ends_with("_tests.rs")
}

/// Lines of code and unsafe marks up to the file's test module.
fn count(source: &str) -> (u64, u64) {
    let mut lines = 0;
    let mut unsafes = 0;
    for line in source.lines().map(str::trim) {
        if line == "#[cfg(test)]" {
            break;
        }
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        lines += 1;
        let code = line.split("//").next().unwrap_or_default();
        unsafes += ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .map(|mark| code.matches(mark).count() as u64)
            .sum::<u64>();
    }
    (lines, unsafes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_tests_are_not_code() {
        let source = "//! doc\n\nfn a() {\n    // unsafe { no }\n    unsafe { b() }\n}\n#[cfg(test)]\nmod tests { unsafe {} }\n";
        assert_eq!(count(source), (3, 1));
    }

    #[test]
    fn growth_beyond_the_slack_is_a_difference() {
        let old = Figures {
            packages: 9,
            first_party_lines: 1000,
            first_party_unsafe: 3,
            size_bytes: 10_000,
        };
        let check = |change: fn(&mut Figures), expect: bool| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(difference("agent", Some(&old), Some(&new)).is_some(), expect, "{new:?}");
        };
        check(|_| (), false);
        check(|f| f.size_bytes += 300, false);
        check(|f| f.size_bytes += 301, true);
        check(|f| f.packages += 1, true);
        check(|f| f.first_party_unsafe += 1, true);
    }
}
