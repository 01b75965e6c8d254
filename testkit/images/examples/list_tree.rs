//! Prints the listing of a folder: built static, it tells from inside a VM what the kernel shows of a mounted layer.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    print!(
        "{}",
        ah_testkit_images::listing::text(&ah_testkit_images::listing::from_dir(Path::new(
            &folder
        ))?)
    );
    Ok(())
}
