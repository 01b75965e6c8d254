//! The demo's images: busybox of Debian, and the workload with a message sealed for its key.

use ah_testkit_images::{Entry, LayerSpec, LayoutBuilder, Packing, busybox, program};
use anyhow::{Context, Result, bail};

use crate::scene::static_program;

/// Adds both images of `examples/sealed-message/pod.yaml`.
///
/// # Errors
/// When the workload is not built or busybox is not installed.
pub fn add_images(images: &mut LayoutBuilder, secret: &[u8; 32], message: &str) -> Result<()> {
    let mut nonce = [0; 12];
    if let Err(error) = getrandom::fill(&mut nonce) {
        bail!("no randomness for a nonce: {error}");
    }
    let sealed = ah_example_sealed_message::seal(secret, nonce, message.as_bytes())?;
    let sealed = LayerSpec::of(Packing::Gzip, [Entry::file("sealed-message", sealed.into_bytes())]);
    let workload = static_program("sealed-message");
    let image = program(&workload, "/usr/bin/sealed-message")
        .with_context(|| format!("{} is not built; run `cargo xtask setup`", workload.display()))?;
    images.add("localhost/anchorhold/busybox:demo", &busybox()?)?;
    images.add("localhost/anchorhold/sealed-message:demo", &image.with_layer(sealed))?;
    Ok(())
}
