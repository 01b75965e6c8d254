//! Fuzz targets of model, image and owner, run one after the other for a while, with the inputs that they found kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd::{Done, cargo, root, run_quiet, step, target};
use crate::setup;

/// Folders with fuzz targets, each a cargo package of its own beside the workspace.
const FOLDERS: [&str; 3] = ["model/fuzz", "image/fuzz", "owner/fuzz"];
/// Evidence as it was recorded, beside the project where it is there at all.
const VECTORS: &str = "../shared/reference/vectors";
/// Pinned, from the crate registry.
const CARGO_FUZZ: &str = "0.13.2";
/// Most memory of a target, MiB: a small input must not make a parser take more.
const MEMORY_MIB: u32 = 1024;
/// Longest time of one input, seconds.
const INPUT_SECONDS: u32 = 10;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz --minutes 5            every target for five minutes
  cargo xtask fuzz --minutes 1 policy     targets whose name contains policy
  cargo xtask fuzz --build                compile them and run no input

Inputs that reach new code are kept in target/fuzz/corpus, those that fail in target/fuzz/artifacts.")]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    /// Compile only
    #[arg(long)]
    build: bool,
    /// Only targets whose name contains this
    name: Option<String>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.02..=24.0 * 60.0).contains(&minutes) {
        return Err(format!("found {text}, expected 0.02 to 1440"));
    }
    Ok(minutes)
}

/// The `fuzz` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    tool()?;
    let wanted = |name: &String| options.name.as_ref().is_none_or(|part| name.contains(part));
    let (mut any, mut failed) = (false, Vec::new());
    for folder in FOLDERS {
        for name in targets(folder)?.into_iter().filter(wanted) {
            any = true;
            let seconds = (options.minutes * 60.0).round();
            let done = step(&format!("fuzz {folder} {name}"), || match options.build {
                true => build(folder, &name),
                false => one(folder, &name, seconds),
            });
            // The others are run all the same.
            if let Err(error) = done {
                eprintln!("error: {error:#}");
                failed.push(name);
            }
        }
    }
    if !any {
        bail!("no target has {:?} in its name", options.name.as_deref().unwrap_or(""));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("these targets failed: {}", failed.join(", ")),
    }
}

fn tool() -> Result<()> {
    step("cargo-fuzz", || {
        if setup::tools().join("bin/cargo-fuzz").is_file() {
            return Ok(Done::Skipped("is built".into()));
        }
        let mut install = cargo(&["install", "--quiet", "--locked", "cargo-fuzz"]);
        install.args(["--version", CARGO_FUZZ, "--root"]).arg(setup::tools());
        run_quiet(install.arg("--target-dir").arg(target().join("tools-build")))?;
        Ok(Done::Did(format!("cargo-fuzz {CARGO_FUZZ}")))
    })
}

/// Names of a folder's targets.
fn targets(folder: &str) -> Result<Vec<String>> {
    let sources = root().join(folder).join("fuzz_targets");
    let entries = fs::read_dir(&sources).with_context(|| sources.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

fn kept(what: &str, folder: &str, name: &str) -> Result<PathBuf> {
    let kept = target().join("fuzz").join(what).join(folder.replace('/', "-")).join(name);
    fs::create_dir_all(&kept).with_context(|| kept.display().to_string())?;
    Ok(kept)
}

/// The sanitizers need switches that stable compilers have for themselves only.
fn fuzz(folder: &str, verb: &str, name: &str) -> Result<Command> {
    let mut command = cargo(&["fuzz", verb, "--fuzz-dir"]);
    command.arg(root().join(folder)).arg("--target-dir").arg(target().join("fuzz/build"));
    command.arg("--sanitizer=none").arg(name);
    command.env("RUSTC_BOOTSTRAP", "1").env("PATH", setup::path_with_tools()?);
    command.env_remove("RUSTC_WORKSPACE_WRAPPER").current_dir(root().join(folder));
    Ok(command)
}

fn build(folder: &str, name: &str) -> Result<Done> {
    run_quiet(&mut fuzz(folder, "build", name)?)?;
    Ok(Done::Did("compiled".into()))
}

fn one(folder: &str, name: &str, seconds: f64) -> Result<Done> {
    let corpus = kept("corpus", folder, name)?;
    let artifacts = kept("artifacts", folder, name)?;
    let mut command = fuzz(folder, "run", name)?;
    command.arg(&corpus);
    // recorded evidence, read only: a target begins with it and not with nothing
    let vectors = root().join(VECTORS);
    if folder == "owner/fuzz" && vectors.is_dir() {
        command.arg(vectors);
    }
    command.arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args([format!("-rss_limit_mb={MEMORY_MIB}"), format!("-timeout={INPUT_SECONDS}")]);
    command.args(["-print_final_stats=1", "-verbosity=0"]);
    run_quiet(&mut command).with_context(|| format!("the input is in {}", artifacts.display()))?;
    let inputs = fs::read_dir(&corpus)?.count();
    Ok(Done::Did(format!("{seconds} s, nothing found, corpus of {inputs} inputs")))
}
