//! Figures of pods in VMs below a real containerd, beside those of runc on the same one.
//!
//! Prints one row a figure; with `--json` one object a line: name, value, unit, reference, ratio, goal, met. Node, pods and VMs share this
//! machine's cores. Needs root.
#![forbid(unsafe_code)]

mod bare;
mod memory;
mod reading;
mod running;
mod site;
mod snapshot;
mod start;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::site::Site;

#[derive(Parser)]
pub(crate) struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How often each pod is started; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Folder with `containerd-shim-anchorhold-v2` and `anchorhold-snapshotter`
    #[arg(long)]
    programs: PathBuf,
    /// Folder with the guest image
    #[arg(long)]
    guest: PathBuf,
    /// Folder in which QEMU and the vsock device are looked for before PATH
    #[arg(long)]
    tools: PathBuf,
    /// The static program that powers off at once
    #[arg(long)]
    bench_init: PathBuf,
    /// The static program that reads a disk as it is and through dm-verity
    #[arg(long)]
    bench_verity: PathBuf,
}

fn main() -> Result<()> {
    ah_vmm::supervisor::run_if_asked();
    let mut options = Options::parse();
    // Daemons have other working folders.
    for folder in [&mut options.programs, &mut options.guest, &mut options.tools] {
        *folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let site = Site::start(options).await?;
    start::measure(&site, options).await?;
    snapshot::measure(&site, options).await?;
    running::measure(&site, options).await?;
    memory::measure(&site, options).await?;
    reading::measure(options).await
}
