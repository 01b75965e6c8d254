//! The main job, shown.
use anyhow::Result;

#[derive(clap::Args)]
pub(crate) struct Options {}

/// The `demo` command.
pub(crate) fn run(_options: &Options) -> Result<()> {
    crate::setup::run()
}
