//! The same again and again, for long: what `cargo xtask test` runs short.

use anyhow::Result;
use clap::Subcommand;

use crate::cmd::{Done, linting_cargo, run as command, step};
use crate::test::NODE_REQUIRED;
use crate::{kubernetes, setup};

/// Test of pods that come and go, and how it is told of more of them.
const PODS_TEST: &str = "test(=many::pods_that_come_and_go_leave_nothing_behind)";
const PODS_CYCLES: &str = "ANCHORHOLD_SOAK_CYCLES";
const TOKEN_TEST: &str = "test(=tokens::a_token_that_the_kubelet_renews_is_renewed_in_the_pod)";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask soak keyservice --requests 10000 --kills 20
  cargo xtask soak pods --cycles 200
  cargo xtask soak token")]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The key service is killed again and again under imports and releases, on SQLite and on PostgreSQL, and has to lose none of them
    Keyservice {
        /// Imports, and as many releases
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        requests: u32,
        /// How often the service is killed on the way
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        kills: u32,
    },
    /// Pods in VMs are made and removed; files, descriptors, mounts, interfaces, sockets and processes are counted before and after
    Pods {
        /// How often
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        cycles: u32,
    },
    /// A pod on a real Kubernetes gets the token of its service account again when the kubelet renews it (ten minutes)
    Token,
}

/// The `soak` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Keyservice { requests, kills } => keyservice(requests, kills),
        What::Pods { cycles } => pods(cycles),
        What::Token => token(),
    }
}

/// One test in the profile for long runs. The whole workspace, so that what `cargo xtask test` built is used.
fn long_test(words: &[&str], env: &[(&str, u32)]) -> Result<()> {
    let all = ["nextest", "run", "--locked", "--workspace", "--profile", "soak"];
    let mut nextest = linting_cargo(&all)?;
    nextest.args(words).env("PATH", setup::path_with_tools()?);
    nextest.envs(env.iter().map(|(name, value)| (name, value.to_string())));
    nextest.env(NODE_REQUIRED, "1").env("ANCHORHOLD_KUBERNETES", kubernetes::folder());
    command(&mut nextest)
}

fn keyservice(requests: u32, kills: u32) -> Result<()> {
    setup::for_soak()?;
    step("key service, killed at work", || {
        let env = [("ANCHORHOLD_KILL_REQUESTS", requests), ("ANCHORHOLD_KILLS", kills)];
        long_test(&["--test", "keyservice_process", "-E", "test(a_killed_service)"], &env)?;
        Ok(Done::Did(format!("{requests} imports and releases, {kills} kills, on both databases")))
    })
}

fn pods(cycles: u32) -> Result<()> {
    setup::run()?;
    setup::nextest()?;
    step("pods", || {
        long_test(&["-E", PODS_TEST], &[(PODS_CYCLES, cycles)])?;
        Ok(Done::Did(format!("{cycles} came and went, nothing is left")))
    })
}

fn token() -> Result<()> {
    setup::run()?;
    setup::nextest()?;
    kubernetes::programs()?;
    step("token", || {
        let words = ["--ignore-default-filter", "--run-ignored", "only", "--test", "kubernetes"];
        long_test(&[&words[..], &["-E", TOKEN_TEST]].concat(), &[])?;
        Ok(Done::Did("renewed in the pod".into()))
    })
}
