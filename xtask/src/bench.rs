//! Figures beside their goals.
use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {}

/// The `bench` command.
pub(crate) fn run(_options: &Options) -> Result<()> {
    crate::setup::run()
}
