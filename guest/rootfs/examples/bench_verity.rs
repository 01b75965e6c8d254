//! The only program of an initrd of its own: reads a disk as it is and through dm-verity, in turns, and says how fast. For
//! `cargo xtask bench kubernetes`; never part of a guest image.
//!
//! The kernel command line has `bench.root=HEX bench.blocks=N`, what opens the one disk. Lines on the console: `bench NAME MIB_PER_S`, then
//! `bench end`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ah_guest_sys::device_mapper::{Access, MappedDevice, Target};
use ah_guest_sys::kernel::{Module, console_line, power_off};
use ah_guest_sys::mount::{MountFlags, filesystem};
use ah_verity::VerityInfo;

const DISK: &str = "/dev/vda";
const ROUNDS: usize = 5;
const CHUNK: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Reads of one block in a round.
const RANDOM_READS: u64 = 2000;
const DEVICE_LIMIT: Duration = Duration::from_secs(30);

fn main() {
    if let Err(error) = run() {
        console_line(&format!("bench error: {error}"));
    }
    console_line("bench end");
    console_line(&format!("bench error: {}", power_off()));
}

fn run() -> Result<(), Box<dyn Error>> {
    for (fs, folder) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(folder)?;
        filesystem(fs, fs, Path::new(folder), MountFlags::empty(), "")?;
    }
    load_modules()?;
    let begun = Instant::now();
    while File::open(DISK).is_err() {
        if begun.elapsed() > DEVICE_LIMIT {
            return Err(format!("{DISK} is not there").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let info = verity()?;
    let parameters = info.table_parameters(DISK);
    let target = Target { kind: "verity", sectors: info.data_sectors(), parameters: &parameters };
    for _ in 0..ROUNDS {
        for way in [Way::Sequential, Way::Random] {
            say(way, "raw", read(way, Path::new(DISK), &info)?);
            // dm-verity keeps the hashes that it has read in a cache of its own, which only goes with the device
            let device = MappedDevice::create("bench", &target, Access::ReadOnly)?;
            say(way, "verity", read(way, device.node(), &info)?);
            device.remove().map_err(|(_, error)| error)?;
        }
    }
    Ok(())
}

/// How a device is read.
#[derive(Clone, Copy)]
enum Way {
    Sequential,
    Random,
}

/// Bytes, and the seconds that they took; nothing is in the kernel's cache of pages before.
fn read(way: Way, device: &Path, info: &VerityInfo) -> Result<(u64, f64), Box<dyn Error>> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    match way {
        Way::Sequential => sequential(device, info.hash_offset_bytes()),
        Way::Random => random(device, info.data_blocks),
    }
}

fn say(way: Way, device: &str, (bytes, seconds): (u64, f64)) {
    let what = match way {
        Way::Sequential => "sequential",
        Way::Random => "random",
    };
    console_line(&format!("bench {what}-{device} {:.3}", bytes as f64 / 1048576.0 / seconds));
}

/// The modules that every guest loads, one after the other.
fn load_modules() -> Result<(), Box<dyn Error>> {
    let list = fs::read_to_string("/lib/modules/list")?;
    for line in list.lines() {
        if let ["all", _, name] = line.split(' ').collect::<Vec<_>>().as_slice() {
            Module::open(Path::new(&format!("/lib/modules/{name}.ko")))?.load()?;
        }
    }
    Ok(())
}

fn verity() -> Result<VerityInfo, Box<dyn Error>> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let word = |name: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.ok_or_else(|| format!("command line has no {name}"))
    };
    let (root, blocks) = (word("bench.root=")?, word("bench.blocks=")?);
    Ok(VerityInfo { root_hash: root.parse()?, data_blocks: blocks.parse()?, salt: [0; 32] }
        .checked()?)
}

/// Bytes from the start on, and the time that they took.
fn sequential(device: &Path, bytes: u64) -> Result<(u64, f64), Box<dyn Error>> {
    let mut from = File::open(device)?.take(bytes);
    let mut buffer = vec![0; CHUNK];
    let (begun, mut total) = (Instant::now(), 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((total, begun.elapsed().as_secs_f64())),
            read => total += read as u64,
        }
    }
}

/// Blocks all over the device, the same ones in every round (xorshift64, Marsaglia 2003).
fn random(device: &Path, blocks: u64) -> Result<(u64, f64), Box<dyn Error>> {
    let file = File::open(device)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
    let mut buffer = vec![0; BLOCK];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let begun = Instant::now();
    for _ in 0..RANDOM_READS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(&mut buffer, state % blocks * BLOCK as u64)?;
    }
    Ok((RANDOM_READS * BLOCK as u64, begun.elapsed().as_secs_f64()))
}
