//! Steps with their times, and child processes whose failures say what was run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target folder, CARGO_TARGET_DIR respected.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What a step did, for its one line of output.
pub(crate) enum Done {
    /// Work was done.
    Did(String),
    /// Nothing was left to do.
    Skipped(String),
}

/// Runs one named step and prints it with its time on stderr.
pub(crate) fn step(name: &str, work: impl FnOnce() -> Result<Done>) -> Result<()> {
    let start = Instant::now();
    let done = work().with_context(|| format!("step '{name}'"))?;
    let seconds = start.elapsed().as_secs_f64();
    match done {
        Done::Did(what) => eprintln!("[{seconds:7.1} s] {name}: {what}"),
        Done::Skipped(why) => eprintln!("[   skip  ] {name}: {why}"),
    }
    Ok(())
}

/// A cargo command at the root of the checkout, with the cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// A cargo command whose builds are linted by clippy on the way, warnings denied: the lints cost no second build of the
/// dependencies. What it builds is apart from what plain cargo builds, and is for tests only: clippy turns some of the
/// compiler's optimizations off.
pub(crate) fn linting_cargo(args: &[&str]) -> Result<Command> {
    let Some(driver) = on_path("clippy-driver") else {
        bail!("clippy-driver is not on PATH\nhint: rustup component add clippy");
    };
    let mut command = cargo(args);
    command.env("RUSTC_WORKSPACE_WRAPPER", driver);
    if std::env::var_os("CI").is_some() {
        // Nobody builds there again.
        command.env("CARGO_INCREMENTAL", "0");
    }
    // cargo-clippy's own way of handing arguments to the driver
    command.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    Ok(command)
}

/// Runs a command with its output on ours; fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("could not start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// Runs a command quietly; its output is shown only when it fails.
pub(crate) fn run_quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command and gives its standard output; standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {shown}"))?;
    if !output.status.success() {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed: {}\n{stdout}{stderr}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether we are root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Whether a program is found on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
