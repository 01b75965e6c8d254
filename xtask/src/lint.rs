//! What must hold before a test is worth running.

use anyhow::Result;

use crate::cmd::{Done, cargo, on_path, run as command, step};
use crate::{layers, tcb};

/// What takes seconds: formatting, zone arrows.
pub(crate) fn quick() -> Result<()> {
    step("format", || {
        command(&mut cargo(&["fmt", "--all", "--check"]))?;
        Ok(Done::Did("cargo fmt --check".into()))
    })?;
    step("layers", || layers::run().map(|()| Done::Did("zones.toml holds".into())))
}

/// Clippy with warnings denied. The tests have it from their own build instead.
fn clippy() -> Result<()> {
    step("clippy", || {
        command(&mut cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))?;
        Ok(Done::Did("no warnings".into()))
    })
}

/// The dependency policy.
pub(crate) fn dependencies() -> Result<()> {
    step("dependencies", || {
        if on_path("cargo-deny").is_none() {
            return Ok(Done::Skipped("cargo-deny is not installed (deny.toml unchecked)".into()));
        }
        command(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
        Ok(Done::Did("deny.toml holds".into()))
    })
}

/// The `lint` command: all of it, and the snapshot of tcb.json.
pub(crate) fn run() -> Result<()> {
    quick()?;
    clippy()?;
    dependencies()?;
    step("tcb", || tcb::check().map(Done::Did))
}
