//! Zone arrows: who may depend on whom (zones.toml against cargo metadata), and the map of all crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use serde::Deserialize;

use crate::cmd::root;
use crate::map;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    zones: BTreeMap<String, BTreeSet<String>>,
    dev: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    forbidden: Vec<Forbidden>,
    purity: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forbidden {
    from: String,
    to: String,
    why: String,
}

/// Prints the numbers of arrows and rows checked, or every arrow that is not allowed, or every row that does not say what its crate does.
pub(crate) fn run() -> Result<()> {
    let text = fs::read_to_string(root().join("zones.toml")).context("reading zones.toml")?;
    let rules: Rules = toml::from_str(&text).context("zones.toml")?;
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let (checked, wrong) = check(&rules, &zones_of(&metadata)?, &metadata);
    if !wrong.is_empty() {
        bail!("{} arrows are not allowed:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    let (rows, wrong) = map::check(&metadata)?;
    if !wrong.is_empty() {
        bail!("the map of crates differs:\n  {}", wrong.join("\n  "));
    }
    eprintln!(
        "layers: {checked} arrows between first-party crates and of pure zones are allowed, {rows} crates are on the map"
    );
    Ok(())
}

/// The zone of each first-party package: the first folder of its path.
fn zones_of(metadata: &Metadata) -> Result<BTreeMap<String, String>> {
    let root = metadata.workspace_root.as_std_path();
    let mut zones = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let path = package.manifest_path.as_std_path().strip_prefix(root)?;
        let zone = path.iter().next().context("package at the root")?.to_string_lossy();
        zones.insert(package.name.to_string(), zone.into_owned());
    }
    Ok(zones)
}

fn check(
    rules: &Rules,
    zones: &BTreeMap<String, String>,
    metadata: &Metadata,
) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for package in metadata.workspace_packages() {
        let zone = &zones[package.name.as_str()];
        for (name, kind) in arrows(package) {
            checked += 1;
            if let Err(why) = allowed(rules, zone, &name, zones.get(&name), kind) {
                wrong.push(format!("{} ({zone}) -> {name}: {why}", package.name));
            }
        }
    }
    (checked, wrong)
}

fn arrows(package: &Package) -> impl Iterator<Item = (String, DependencyKind)> + '_ {
    package.dependencies.iter().map(|dep| (dep.name.clone(), dep.kind))
}

fn allowed(
    rules: &Rules,
    from: &str,
    name: &str,
    to: Option<&String>,
    kind: DependencyKind,
) -> Result<(), String> {
    let Some(row) = rules.zones.get(from) else {
        return Err(format!("zones.toml has no row for '{from}'"));
    };
    let Some(to) = to else {
        let impure = rules.purity.get(from).is_some_and(|names| names.contains(name));
        return if impure && kind == DependencyKind::Normal {
            Err(format!("{from}/ has no I/O, async, clock or randomness"))
        } else {
            Ok(())
        };
    };
    if let Some(rule) = rules.forbidden.iter().find(|rule| rule.from == from && rule.to == name) {
        return Err(rule.why.clone());
    }
    let in_dev = kind == DependencyKind::Development
        && rules.dev.get("all").is_some_and(|zones| zones.contains(to));
    if row.contains(to) || in_dev { Ok(()) } else { Err(format!("{from}/ may not use {to}/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(&fs::read_to_string(root().join("zones.toml")).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(from: &str, name: &str, to: Option<&str>, kind: DependencyKind, expect: bool) {
        let to = to.map(str::to_owned);
        let found = allowed(&rules(), from, name, to.as_ref(), kind);
        assert_eq!(found.is_ok(), expect, "{from} -> {name}: {found:?}");
    }

    #[test]
    fn arrows_follow_trust() {
        use DependencyKind::{Development, Normal};
        check("guest", "ah-permit", Some("model"), Normal, true);
        check("guest", "ah-erofs", Some("image"), Normal, false);
        check("guest", "ah-erofs", Some("image"), Development, false);
        check("owner", "ah-oci", Some("image"), Normal, true);
        check("owner", "ah-vmm", Some("host"), Normal, false);
        check("owner", "ah-software-tee", Some("host"), Development, false);
        check("host", "ah-verifier", Some("owner"), Normal, false);
        check("model", "ah-testkit-images", Some("testkit"), Development, true);
        check("model", "ah-testkit-images", Some("testkit"), Normal, false);
        check("anchorhold", "ah-vmm", Some("host"), Normal, true);
    }

    #[test]
    fn model_is_pure() {
        use DependencyKind::Normal;
        check("model", "serde", None, Normal, true);
        check("model", "tokio", None, Normal, false);
        check("host", "tokio", None, Normal, true);
        check("nowhere", "serde", None, Normal, false);
    }

    #[test]
    fn the_tree_as_it_stands_is_allowed() {
        let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
        let zones = zones_of(&metadata).unwrap();
        let (checked, wrong) = super::check(&rules(), &zones, &metadata);
        assert!(checked > 50, "only {checked} arrows seen");
        assert_eq!(wrong, Vec::<String>::new());
    }
}
