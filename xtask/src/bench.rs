//! Figures beside their goals, each with the reference measured in the same run.

use anyhow::Result;

use crate::cmd::{Done, cargo, run as command, run_quiet, step, target};
use crate::setup;

/// What is measured together.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Group {
    /// Start-up, layer conversion, policy decision, report verification
    Main,
}

#[derive(clap::Args)]
#[command(after_help = "Rows go to standard output, steps to standard error. Use a quiet machine.")]
pub(crate) struct Options {
    /// Which figures
    #[arg(value_enum, default_value_t = Group::Main)]
    group: Group,
    /// One JSON object a line: name, value, unit, reference, ratio, goal, met
    #[arg(long)]
    json: bool,
}

/// The `bench` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.group {
        Group::Main => main_figures(options.json),
    }
}

fn main_figures(json: bool) -> Result<()> {
    setup::run()?;
    step("release build", || {
        let packages = ["--package", "anchorhold", "--package", "ah-testkit-e2e", "--bins"];
        run_quiet(cargo(&["build", "--quiet", "--locked", "--release"]).args(packages))?;
        run_quiet(&mut cargo(&["bench", "--quiet", "--locked", "-p", "ah-convert", "--no-run"]))?;
        Ok(Done::Did("anchorhold and the benchmarks".into()))
    })?;
    step("start-up, decision, verification", || {
        let mut bench = std::process::Command::new(target().join("release/bench-main"));
        bench.arg("--bench-init").arg(setup::guest_build().bench_init);
        bench.args(json.then_some("--json")).env("PATH", setup::path_with_tools()?);
        bench.env("ANCHORHOLD_GUEST", setup::guest_dir());
        command(&mut bench)?;
        Ok(Done::Did("7 runs of each, medians".into()))
    })?;
    step("layer conversion", || {
        let mut bench =
            cargo(&["bench", "--quiet", "--locked", "-p", "ah-convert", "--bench", "convert"]);
        bench.arg("--").args(json.then_some("--json"));
        command(&mut bench)?;
        Ok(Done::Did("best of 5, in turns with the reference".into()))
    })
}
