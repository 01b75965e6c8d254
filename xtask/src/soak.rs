//! Tests that take long, which `cargo xtask test` runs short.

use anyhow::Result;

use crate::cmd::{Done, linting_cargo, run as command, step};
use crate::setup;

#[derive(clap::Args)]
#[command(after_help = "Example:
  cargo xtask soak keyservice --requests 10000 --kills 20")]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
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
}

/// The `soak` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let What::Keyservice { requests, kills } = options.what;
    setup::for_soak()?;
    step("key service, killed at work", || {
        // The whole workspace, so that what `cargo xtask test` built is used.
        let words = ["nextest", "run", "--locked", "--workspace", "--profile", "soak"];
        let mut nextest = linting_cargo(&words)?;
        nextest.args(["--test", "keyservice_process", "-E", "test(a_killed_service)"]);
        nextest.args(["--success-output", "immediate"]);
        nextest.env("ANCHORHOLD_KILL_REQUESTS", requests.to_string());
        nextest.env("ANCHORHOLD_KILLS", kills.to_string());
        command(nextest.env("PATH", setup::path_with_tools()?))?;
        Ok(Done::Did(format!("{requests} imports and releases, {kills} kills, on both databases")))
    })
}
