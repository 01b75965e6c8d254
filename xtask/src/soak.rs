//! The same again and again, for what only shows in the long run.

use anyhow::Result;
use clap::Subcommand;

use crate::cmd::{Done, linting_cargo, run as command, step};
use crate::setup;

/// Test of pods that come and go, and how it is told of more of them.
const PODS_TEST: &str = "test(=pods_that_come_and_go_leave_nothing_behind)";
const PODS_CYCLES: &str = "ANCHORHOLD_SOAK_CYCLES";

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Pods in VMs are made and removed; files, descriptors, mounts, interfaces, sockets and processes are counted before and after
    Pods {
        /// How often
        #[arg(long, default_value_t = 200)]
        cycles: u32,
    },
}

/// The `soak` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Pods { cycles } => pods(cycles),
    }
}

fn pods(cycles: u32) -> Result<()> {
    setup::run()?;
    setup::nextest()?;
    step("pods", || {
        let mut nextest = linting_cargo(&["nextest", "run", "--locked", "--workspace"])?;
        nextest.args(["--profile", "soak", "-E", PODS_TEST]);
        nextest.env(PODS_CYCLES, cycles.to_string()).env("PATH", setup::path_with_tools()?);
        command(&mut nextest)?;
        Ok(Done::Did(format!("{cycles} came and went, nothing is left")))
    })
}
