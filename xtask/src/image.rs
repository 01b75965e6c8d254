//! Container images of the project's own programs, as OCI layouts.

use std::fs;
use std::path::PathBuf;

use ah_testkit_images::{LayoutBuilder, sidecar as sidecar_image};
use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cmd::{Done, step, target};
use crate::setup::{guest_build, sidecar_program};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which image
    what: What,
    /// Folder of the OCI layout; replaced when it is there [default: target/images/NAME]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Name in the layout's index
    #[arg(long, default_value = "localhost/anchorhold-sidecar:latest")]
    name: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The key-release sidecar
    Sidecar,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.what {
        What::Sidecar => sidecar(options),
    }
}

fn sidecar(options: &Options) -> Result<()> {
    sidecar_program()?;
    let folder = options.out.clone().unwrap_or_else(|| target().join("images/sidecar"));
    step("sidecar image", || {
        let built = guest_build().init.with_file_name("anchorhold-sidecar");
        let image = sidecar_image(&built)?;
        replace(&folder)?;
        let mut layout = LayoutBuilder::create(&folder)?;
        let made = layout.add(&options.name, &image)?;
        layout.finish()?;
        Ok(Done::Did(format!("{} in {}", made.manifest_digest.to_oci(), folder.display())))
    })
}

/// Removes an older layout; anything else that is there stays, and is an error.
fn replace(folder: &PathBuf) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let layout = folder.join("oci-layout").is_file();
    anyhow::ensure!(layout, "{} is there and is no OCI layout", folder.display());
    fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
}
