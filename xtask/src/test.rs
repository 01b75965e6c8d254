//! Every check and test, in the order in which a failure is cheapest to learn.

use anyhow::Result;

use crate::cmd::{Done, cargo, run as command, run_quiet, step};
use crate::{lint, setup, tcb};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed to cargo-nextest, for example a test name filter
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// The `test` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run_for_tests(|| {
        lint::run_all()?;
        step("test programs", || {
            // Programs and tests at once: apart, they would ask the same packages for other features.
            run_quiet(&mut cargo(&[
                "build",
                "--quiet",
                "--locked",
                "--workspace",
                "--bins",
                "--tests",
                "--examples",
            ]))?;
            Ok(Done::Did("built".into()))
        })
    })?;
    step("tcb", || tcb::check().map(Done::Did))?;
    step("tests", || {
        let mut nextest = cargo(&["nextest", "run", "--locked", "--workspace"]);
        nextest.args(&options.nextest).env("PATH", setup::path_with_tools()?);
        command(&mut nextest)?;
        Ok(Done::Did("all passed".into()))
    })
}
