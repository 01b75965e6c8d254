//! Checks and tests of the workspace, in the order in which a failure is cheapest to learn. Not among them: the tests on a Kubernetes
//! (`--kubernetes`, which runs those only), fuzz targets, soaks.

use anyhow::Result;

use crate::cmd::{Done, is_root, linting_cargo, root, run as command, run_quiet, step};
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
    if options.kubernetes {
        kubernetes::programs()?;
    } else {
        let how = "`cargo xtask test --kubernetes` runs pods on a real one";
        step("Kubernetes", || Ok(Done::Skipped(how.into())))?;
    }
    if !is_root()? && !options.kubernetes {
        let what =
            "not root: tests of pods below a real containerd, and of a full disk, do nothing";
        step("pods below containerd", || Ok(Done::Skipped(what.into())))?;
    }
    let vectors = root().join("../shared/reference/vectors");
    if !vectors.is_dir() {
        // the tests themselves say so where nobody reads it
        let what =
            format!("{} is missing: tests of recorded evidence pass without it", vectors.display());
        step("recorded evidence", || Ok(Done::Skipped(what)))?;
    }
    step("tests", || {
        let mut nextest = linting_cargo(&["nextest", "run", "--locked", "--workspace"])?;
        if options.kubernetes {
            nextest.args(["--ignore-default-filter", "--test", "kubernetes"]);
            nextest.env("ANCHORHOLD_KUBERNETES", kubernetes::folder()).env(NODE_REQUIRED, "1");
        }
        nextest.args(&options.nextest).env("PATH", setup::path_with_tools()?);
        command(&mut nextest)?;
        Ok(Done::Did("all passed".into()))
    })
}
