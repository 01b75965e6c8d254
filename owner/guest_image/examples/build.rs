//! Builds an image from finished guest programs: `build INIT AGENT OUT CACHE [KERNEL]`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use ah_guest_image::{BuildOptions, ImageError, KernelChoice};

fn main() -> Result<(), ImageError> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [init, agent, out, cache, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: build INIT AGENT OUT CACHE [KERNEL]");
        return Ok(());
    };
    let kernel = rest.first().map_or(KernelChoice::Debian, |file| KernelChoice::File(file.clone()));
    let options = BuildOptions {
        init: init.clone(),
        agent: agent.clone(),
        out: out.clone(),
        cache: cache.clone(),
        kernel,
    };
    let image = ah_guest_image::build(&options)?;
    println!("{}", serde_json::to_string_pretty(&image.manifest).unwrap_or_default());
    Ok(())
}
