//! Reading a layer's disk in a guest, as it is and through dm-verity: by a VM of its own whose one program does nothing else, since no
//! container gets at a device.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;

use ah_layers::{LayerImage, LayerStore};
use ah_oci::LayerMediaType;
use ah_testkit_figures::{Row, median};
use ah_testkit_images::random_layer;
use ah_vmm::Disk;
use anyhow::{Context as _, Result, bail};

use crate::{Options, bare};

const LAYER_BYTES: u64 = 64 << 20;
/// Values of each way to read and each device: as many as the program in the guest makes.
const ROUNDS: usize = 5;

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let layer = layer(folder.path())?;
    let initrd = folder.path().join("initrd");
    // A kernel unpacks archives one behind the other; the later `/init` counts, and the modules are the first's.
    let mut bytes = std::fs::read(options.guest.join("initrd"))?;
    bytes.extend(ah_guest_image::reference_initrd(&options.bench_verity)?);
    std::fs::write(&initrd, bytes)?;
    let more =
        format!(" bench.root={} bench.blocks={}", layer.info.root_hash, layer.info.data_blocks);
    let (mut spec, tools) = bare::spec(options, &more).await?;
    spec.initrd = Some(initrd);
    spec.disks.push(Disk::read_only(&layer.path, "layer"));
    let (console, _) = ah_testkit_bare_boot::run(&spec, &tools).await?;
    if let Some(error) = console.lines().find(|line| line.contains("bench error")) {
        bail!("{error}");
    }
    for (what, name) in [
        ("sequential", "read, 64 MiB one behind the other, through verity; against the raw device"),
        ("random", "read, 2000 blocks of 4 KiB at random, through verity; against the raw device"),
    ] {
        let [raw, verity] = ["raw", "verity"].map(|device| rates(&console, what, device));
        let reference = Some(raw?);
        Row { name, value: verity?, unit: "MiB/s", reference, goal: None }.print(options.json);
    }
    Ok(())
}

/// The median of what the guest said of one way to read.
fn rates(console: &str, what: &str, device: &str) -> Result<f64> {
    let start = format!("bench {what}-{device} ");
    let found = console.lines().filter_map(|line| line.split_once(&start));
    let rates = found.map(|(_, rate)| Ok(rate.trim().parse()?)).collect::<Result<Vec<f64>>>();
    let mut rates = rates?;
    if rates.len() != ROUNDS {
        bail!("the guest said {} times '{start}', expected {ROUNDS}: {console}", rates.len());
    }
    Ok(median(&mut rates))
}

fn layer(folder: &Path) -> Result<LayerImage> {
    let tar = folder.join("layer.tar");
    random_layer(BufWriter::new(File::create(&tar)?), LAYER_BYTES)?;
    let diff_id = ah_digest::Sha256::of(&std::fs::read(&tar)?);
    let store = LayerStore::open(folder.join("layers"))?;
    let open = || Ok(Box::new(File::open(&tar)?) as Box<dyn Read + Send>);
    store.image_for(&diff_id, LayerMediaType::Tar, open).context("converting the layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_all_rounds_or_none() {
        let line = |rate| format!("[ 1.0] bench random-raw {rate}.000\n");
        let all: String = [5, 1, 3, 2, 4].map(line).concat();
        assert_eq!(rates(&all, "random", "raw").unwrap(), 3.0);
        let cut = all.strip_suffix(&line(4)).unwrap();
        let error = rates(cut, "random", "raw").unwrap_err().to_string();
        assert!(
            error.starts_with("the guest said 4 times 'bench random-raw ', expected 5"),
            "{error}"
        );
    }
}
