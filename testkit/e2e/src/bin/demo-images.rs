//! Makes the demo's images, a fresh key and the message sealed for it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use ah_testkit_images::LayoutBuilder;
use anyhow::{Result, bail};
use clap::Parser;

#[derive(Parser)]
struct Options {
    /// The OCI layout to make
    #[arg(long)]
    out: PathBuf,
    /// Where the fresh key goes
    #[arg(long)]
    key_out: PathBuf,
    /// The message to seal
    #[arg(long)]
    message: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut key = [0; 32];
    if let Err(error) = getrandom::fill(&mut key) {
        bail!("no randomness for a key: {error}");
    }
    let mut file =
        fs::File::options().write(true).create_new(true).mode(0o600).open(&options.key_out)?;
    file.write_all(&key)?;
    let mut images = LayoutBuilder::create(&options.out)?;
    ah_testkit_e2e::demo::add_images(&mut images, &key, &options.message)?;
    println!("images in {}, sealed for a key that is in no image", images.finish()?.display());
    Ok(())
}
