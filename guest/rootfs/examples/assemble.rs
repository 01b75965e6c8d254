//! Runs in place of the agent to try a root by hand: opens the layers of the kernel's `layers=PCI:ROOTHASH:BLOCKS,...` (top first), prints
//! what it finds, and ends.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ah_rootfs::{LayerSource, LayerStore, RootAccess, VerifiedRoot};
use ah_verity::VerityInfo;

fn main() -> Result<(), Box<dyn Error>> {
    let line = std::fs::read_to_string("/proc/cmdline")?;
    let layers = line.split_whitespace().find_map(|word| word.strip_prefix("layers="));
    let layers: Vec<LayerSource> =
        layers.unwrap_or_default().split(',').map(source).collect::<Result<_, _>>()?;
    let store = LayerStore::new();
    for access in [RootAccess::ReadOnly, RootAccess::WritableInMemory { size_bytes: 1 << 20 }] {
        let started = Instant::now();
        let target = Path::new("/run/kata-containers/c1/rootfs");
        let root = VerifiedRoot::assemble(&store, &layers, target, access.clone())
            .inspect_err(|error| println!("refused: {error}: {:?}", error.source()))?;
        println!("{access:?} after {} ms", started.elapsed().as_millis());
        list(root.path(), 0);
        for (name, size) in [("small", 10_usize), ("large", 2 << 20)] {
            println!("write {name}: {:?}", std::fs::write(root.path().join(name), vec![1; size]));
        }
        let started = Instant::now();
        println!(
            "check_whole: {:?} after {} ms",
            root.check_whole(),
            started.elapsed().as_millis()
        );
        println!("read everything: {:?}; corruption: {:?}", read(root.path()), root.corruption());
    }
    println!("mounts left: {}", std::fs::read_to_string("/proc/mounts")?.matches("kata").count());
    println!(
        "devices left: {}",
        std::fs::read_dir("/sys/block")?
            .filter_map(Result::ok)
            .filter(|e| e.file_name().to_string_lossy().starts_with("dm-"))
            .count()
    );
    Ok(())
}

fn source(text: &str) -> Result<LayerSource, Box<dyn Error>> {
    let parts: Vec<&str> = text.split(':').collect();
    let [device, root_hash, blocks] = parts.as_slice() else { return Err(text.into()) };
    let verity = VerityInfo {
        root_hash: root_hash.parse()?,
        data_blocks: blocks.parse()?,
        salt: ah_verity::ZERO_SALT,
    };
    Ok(LayerSource { device: device.parse()?, verity })
}

fn list(folder: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        println!("{:depth$}{:?}", "", entry.file_name());
        if entry.path().is_dir() {
            list(&entry.path(), depth + 2);
        }
    }
}

fn read(path: &Path) -> std::io::Result<usize> {
    if !path.is_dir() {
        return Ok(std::fs::read(path)?.len());
    }
    std::fs::read_dir(path)?.map(|entry| read(&entry?.path())).sum()
}
