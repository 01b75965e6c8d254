//! Layer conversion against `mkfs.erofs` of the unpacked tree plus `veritysetup format`, and its peak memory.
//!
//! `cargo bench -p ah-convert` prints rows; with `-- --json` one object a line: name, value, unit, reference, ratio, goal,
//! met. The reference is measured in the same run; each time is the best of five, the two taken in turns.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ah_convert::{Converted, convert_layer, root_hash};
use ah_digest::Sha256;
use ah_oci::LayerMediaType;
use ah_testkit_figures::Row;
use ah_testkit_images::random_layer;

const LAYER_BYTES: u64 = 200 << 20;
const LARGE_LAYER_BYTES: u64 = 1 << 30;
const ROUNDS: usize = 5;
/// Peak memory allowed for the large layer.
const GOAL_MIB: f64 = 150.0;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--peak-of", tar, out] => peak_of(Path::new(tar), Path::new(out)),
        rest => run(rest.contains(&"--json")),
    }
}

fn run(json: bool) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let tar = folder.path().join("layer.tar");
    random_layer(BufWriter::new(File::create(&tar)?), LAYER_BYTES)?;
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree)?;
    tool("tar", &["-xf".as_ref(), tar.as_ref(), "-C".as_ref(), tree.as_ref()])?;
    let diff_id = digest(&tar)?;
    let packed = pack(folder.path(), &tar)?;
    let mut best = vec![Duration::MAX; packed.len() + 2];
    for _ in 0..ROUNDS {
        best[0] = best[0].min(reference(folder.path(), &tree)?);
        for (slot, (_, path, media_type)) in packed.iter().enumerate() {
            let started = Instant::now();
            convert(path, *media_type, &diff_id, &folder.path().join("ours"))?;
            best[slot + 1] = best[slot + 1].min(started.elapsed());
        }
        let started = Instant::now();
        root_hash(File::open(&tar)?, LayerMediaType::Tar, &diff_id)?;
        let last = packed.len() + 1;
        best[last] = best[last].min(started.elapsed());
    }
    let names = packed.iter().map(|(name, ..)| *name).chain(["root hash only"]);
    for (name, time) in names.zip(&best[1..]) {
        let name = format!("convert 200 MB layer, {name}");
        let (value, reference) = (time.as_secs_f64(), best[0].as_secs_f64());
        let goal = Some(("ratio at most 1", value <= reference));
        Row { name: &name, value, unit: "s", reference: Some(reference), goal }.print(json);
    }
    peak(json, folder.path())
}

/// The same layer in each packing.
fn pack(
    folder: &Path,
    tar: &Path,
) -> Result<Vec<(&'static str, PathBuf, LayerMediaType)>, Failure> {
    let (gzip, zstd) = (folder.join("layer.tar.gz"), folder.join("layer.tar.zst"));
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::GzEncoder::new(File::create(&gzip)?, level);
    std::io::copy(&mut File::open(tar)?, &mut encoder)?;
    encoder.finish()?;
    zstd::stream::copy_encode(File::open(tar)?, File::create(&zstd)?, 3)?;
    Ok(vec![
        ("tar", tar.to_owned(), LayerMediaType::Tar),
        ("tar+gzip", gzip, LayerMediaType::TarGzip),
        ("tar+zstd", zstd, LayerMediaType::TarZstd),
    ])
}

fn convert(
    layer: &Path,
    media_type: LayerMediaType,
    diff_id: &Sha256,
    out: &Path,
) -> Result<Converted, Failure> {
    Ok(convert_layer(File::open(layer)?, media_type, diff_id, &File::create(out)?)?)
}

fn reference(folder: &Path, tree: &Path) -> Result<Duration, Failure> {
    let (image, hash) = (folder.join("theirs"), folder.join("theirs.hash"));
    for old in [&image, &hash] {
        let _ = std::fs::remove_file(old);
    }
    let started = Instant::now();
    tool("mkfs.erofs", &[image.as_ref(), tree.as_ref()])?;
    let salt = format!("--salt={}", "0".repeat(64));
    tool(
        "/usr/sbin/veritysetup",
        &["format".as_ref(), salt.as_ref(), image.as_ref(), hash.as_ref()],
    )?;
    Ok(started.elapsed())
}

fn tool(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), Failure> {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed: {status}").into()) }
}

fn digest(file: &Path) -> Result<Sha256, Failure> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hasher)?;
    Ok(Sha256::new(hasher.finalize().into()))
}

/// Converts a large layer in a process of its own and reads what that process had in memory at most.
fn peak(json: bool, folder: &Path) -> Result<(), Failure> {
    let (tar, out) = (folder.join("large.tar"), folder.join("large.image"));
    random_layer(BufWriter::new(File::create(&tar)?), LARGE_LAYER_BYTES)?;
    let own = std::env::current_exe()?;
    let output = Command::new(own).arg("--peak-of").args([&tar, &out]).output()?;
    let mib: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let goal = Some(("at most 150 MiB", mib < GOAL_MIB));
    let name = "convert 1 GB layer, peak memory";
    Row { name, value: mib, unit: "MiB", reference: None, goal }.print(json);
    Ok(())
}

fn peak_of(tar: &Path, out: &Path) -> Result<(), Failure> {
    convert(tar, LayerMediaType::Tar, &digest(tar)?, out)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    println!("{}", kib / 1024.0);
    Ok(())
}
