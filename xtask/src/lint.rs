//! What must hold before a test is worth running.

use anyhow::Result;

use crate::cmd::{Done, cargo, on_path, run as command, step};
use crate::{layers, tcb};

/// Formatting, clippy with warnings denied, zone arrows, dependency policy, the trusted computing base's snapshot.
pub(crate) fn run_all() -> Result<()> {
    step("format", || {
        command(&mut cargo(&["fmt", "--all", "--check"]))?;
        Ok(Done::Did("cargo fmt --check".into()))
    })?;
    step("layers", || layers::run().map(|()| Done::Did("zones.toml holds".into())))?;
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
    })?;
    step("dependencies", || {
        if on_path("cargo-deny").is_none() {
            return Ok(Done::Skipped("cargo-deny is not installed (deny.toml unchecked)".into()));
        }
        command(&mut cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
        Ok(Done::Did("deny.toml holds".into()))
    })
}

/// The `lint` command: all of it, and the snapshot of tcb.json.
pub(crate) fn run() -> Result<()> {
    run_all()?;
    step("tcb", || tcb::check().map(Done::Did))
}
