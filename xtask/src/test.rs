//! Checks and tests of the workspace, in the order in which a failure is cheapest to learn. Not among them: fuzz targets, soaks, and where
//! nobody has built the programs of a Kubernetes, the tests on one (`--kubernetes` builds them).

use anyhow::Result;

use crate::cmd::{Done, linting_cargo, run as command, run_quiet, step};
use crate::left_out::Report;
use crate::{kubernetes, lint, setup, tcb};

/// Makes a test fail that would skip for want of root, containerd or a guest image.
pub(crate) const NODE_REQUIRED: &str = "ANCHORHOLD_TEST_NODE_REQUIRED";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the tests on a real Kubernetes; its programs are unpacked or built first
    #[arg(long)]
    kubernetes: bool,
    /// Passed to cargo-nextest, for example a test name filter
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// The `test` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    lint::quick()?;
    setup::run_for_tests(|| {
        lint::dependencies()?;
        step("test programs", || {
            // All at once: apart, they would ask the same packages for other features.
            run_quiet(&mut linting_cargo(&[
                "build",
                "--quiet",
                "--locked",
                "--workspace",
                "--all-targets",
            ])?)?;
            Ok(Done::Did("built, without a warning of clippy".into()))
        })
    })?;
    step("tcb", || tcb::check().map(Done::Did))?;
    let has_cluster = match options.kubernetes {
        true => kubernetes::programs().map(|()| true)?,
        false => kubernetes::programs_at_hand()?,
    };
    let report = Report::of_next_run()?;
    let tested = step("tests", || {
        let mut nextest = linting_cargo(&["nextest", "run", "--locked", "--workspace"])?;
        if options.kubernetes {
            nextest.args(["--test", "kubernetes"]);
            nextest.env(NODE_REQUIRED, "1");
        }
        if has_cluster {
            nextest.env("ANCHORHOLD_KUBERNETES", kubernetes::folder());
        }
        nextest.args(&options.nextest).env("PATH", setup::path_with_tools()?);
        command(&mut nextest)?;
        Ok(Done::Did("all passed".into()))
    });
    // after a failure, too
    let told = tell_left_out(&report);
    tested.and(told)
}

fn tell_left_out(report: &Report) -> Result<()> {
    let Some(reasons) = report.reasons()? else {
        let what =
            format!("not known what they left out: they wrote no {}", report.path().display());
        return step("tests", || Ok(Done::Skipped(what)));
    };
    reasons.into_iter().try_for_each(|reason| step("in tests", || Ok(Done::Skipped(reason))))
}
