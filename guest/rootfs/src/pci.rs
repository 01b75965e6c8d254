//! The host's name for a device: a PCI path in Kata's form, resolved through sysfs.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::DeviceError;

/// Most bridges plus one device in a path.
const STEPS_MAX: usize = 8;
/// How long a device may take to appear: it may be plugged in while its request is already under way.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);
const APPEAR_POLL: Duration = Duration::from_millis(2);
const SYSFS_TEXT_MAX: usize = 64;

/// Slot and function of a device on its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Step {
    slot: u8,
    function: u8,
}

/// A PCI path: `SS[.F]` for each bridge and the device, from the root bus on, joined by `/`; `SS` is two lower-case hex digits up to
/// 1f, `F` one digit up to 7 (0 when left out).
///
/// Chosen by the host and harmless: whatever device it leads to has to pass dm-verity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PciPath(Vec<Step>);

/// A text that is no PCI path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no pci path: found {0:?}, expected such as 02, 03.1 or 1f/02")]
pub struct PciPathError(String);

impl FromStr for PciPath {
    type Err = PciPathError;

    fn from_str(text: &str) -> Result<Self, PciPathError> {
        let error = || PciPathError(text.chars().take(64).collect());
        let steps: Option<Vec<Step>> = text.split('/').take(STEPS_MAX + 1).map(step).collect();
        steps.filter(|steps| steps.len() <= STEPS_MAX).map(Self).ok_or_else(error)
    }
}

fn step(text: &str) -> Option<Step> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let hex = |digits: &str, length: usize, max: u8| {
        let well_formed = digits.len() == length
            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| u8::from_str_radix(digits, 16).ok())?.filter(|value| *value <= max)
    };
    Some(Step { slot: hex(slot, 2, 0x1f)?, function: hex(function, 1, 7)? })
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Step { slot, function }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "/" };
            match function {
                0 => write!(f, "{separator}{slot:02x}")?,
                _ => write!(f, "{separator}{slot:02x}.{function}")?,
            }
        }
        Ok(())
    }
}

/// A block device as sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    /// `major:minor`, as device-mapper takes it.
    pub(crate) number: String,
    /// Length, bytes.
    pub(crate) size_bytes: u64,
}

impl PciPath {
    /// The virtio block device at this path; waits a limited time for it to appear.
    pub(crate) fn block_device(&self, sysfs: &Path) -> Result<BlockDevice, DeviceError> {
        let started = Instant::now();
        loop {
            if let Some(device) = self.look_up(sysfs)? {
                return Ok(device);
            }
            let waited = started.elapsed();
            if waited > APPEAR_TIMEOUT {
                return Err(DeviceError::NotThere {
                    path: self.clone(),
                    waited_ms: waited.as_millis(),
                });
            }
            std::thread::sleep(APPEAR_POLL);
        }
    }

    fn look_up(&self, sysfs: &Path) -> Result<Option<BlockDevice>, DeviceError> {
        let mut folder = sysfs.join("devices/pci0000:00");
        let mut bus = "0000:00".to_owned();
        for (index, Step { slot, function }) in self.0.iter().enumerate() {
            if index > 0 {
                let Some(name) = only_entry(&folder.join("pci_bus"), |_| true)? else {
                    return Ok(None);
                };
                bus = checked_bus(&folder, name)?;
            }
            folder.push(format!("{bus}:{slot:02x}.{function}"));
        }
        let Some(virtio) = only_entry(&folder, |name| name.starts_with("virtio"))? else {
            return Ok(None);
        };
        let Some(name) = only_entry(&folder.join(virtio).join("block"), |_| true)? else {
            return Ok(None);
        };
        describe(&sysfs.join("block"), &name)
    }
}

fn describe(block: &Path, name: &str) -> Result<Option<BlockDevice>, DeviceError> {
    let folder =
        block.join(checked(block, name, |b| b.is_ascii_lowercase() || b.is_ascii_digit())?);
    let (Some(number), Some(sectors)) = (text(&folder.join("dev"))?, text(&folder.join("size"))?)
    else {
        return Ok(None);
    };
    let number = checked(&folder, &number, |b| b.is_ascii_digit() || b == b':')?.to_owned();
    let size_bytes = sectors
        .parse::<u64>()
        .ok()
        .and_then(|sectors| sectors.checked_mul(512))
        .ok_or_else(|| form(&folder.join("size"), &sectors))?;
    Ok(Some(BlockDevice { number, size_bytes }))
}

fn checked_bus(place: &Path, name: String) -> Result<String, DeviceError> {
    let well_formed = name.len() == 7
        && name.bytes().enumerate().all(|(at, b)| match at {
            4 => b == b':',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        });
    if well_formed { Ok(name) } else { Err(form(place, &name)) }
}

fn checked<'a>(
    place: &Path,
    text: &'a str,
    allowed: impl Fn(u8) -> bool,
) -> Result<&'a str, DeviceError> {
    let well_formed = !text.is_empty() && text.bytes().all(allowed);
    if well_formed { Ok(text) } else { Err(form(place, text)) }
}

fn form(place: &Path, found: &str) -> DeviceError {
    let found = found.chars().take(SYSFS_TEXT_MAX).collect();
    DeviceError::Form { place: place.to_owned(), found }
}

/// The one entry of `folder` that is `wanted`; `None` when there is none yet.
fn only_entry(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<String>, DeviceError> {
    let sysfs = |source| DeviceError::Sysfs { place: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(sysfs(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(sysfs)?.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            names.push(name);
        }
    }
    match names.len() {
        0 | 1 => Ok(names.pop()),
        found => Err(DeviceError::Ambiguous { place: PathBuf::from(folder), found }),
    }
}

fn text(file: &Path) -> Result<Option<String>, DeviceError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DeviceError::Sysfs { place: file.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kata_forms_are_read_and_printed() {
        for path in ["02", "03.1", "1f/02", "1f.7/00/1e.3"] {
            assert_eq!(path.parse::<PciPath>().unwrap().to_string(), path);
        }
        assert_eq!("02.0".parse::<PciPath>().unwrap().to_string(), "02");
    }

    #[test]
    fn attack_pci_path_that_leaves_sysfs() {
        let deep = ["00"; STEPS_MAX + 1].join("/");
        for path in [
            "",
            "2",
            "002",
            "20",
            "02.8",
            "02.",
            "02/",
            "/02",
            "..",
            "../02",
            "02/../03",
            "0A",
            "02.1.1",
            "+1",
            "02\n",
            "02\0",
            "/dev/vda",
            deep.as_str(),
        ] {
            assert!(path.parse::<PciPath>().is_err(), "{path:?}");
        }
    }

    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let device = |path: &str, name: &str, number: &str, sectors: &str| {
            let block = dir.path().join("devices/pci0000:00").join(path).join("block").join(name);
            fs::create_dir_all(&block).unwrap();
            let listed = dir.path().join("block").join(name);
            fs::create_dir_all(&listed).unwrap();
            fs::write(listed.join("dev"), number).unwrap();
            fs::write(listed.join("size"), sectors).unwrap();
        };
        device("0000:00:02.0/virtio0", "vda", "254:0\n", "16\n");
        device("0000:00:03.1/0000:01:00.0/virtio1", "vdb", "254:16\n", "8\n");
        fs::create_dir_all(dir.path().join("devices/pci0000:00/0000:00:03.1/pci_bus/0000:01"))
            .unwrap();
        dir
    }

    #[test]
    fn devices_are_found_on_the_root_bus_and_behind_a_bridge() {
        let dir = machine();
        let look_up = |path: &str| path.parse::<PciPath>().unwrap().look_up(dir.path()).unwrap();
        let device =
            |number: &str, size_bytes| Some(BlockDevice { number: number.to_owned(), size_bytes });
        assert_eq!(look_up("02"), device("254:0", 16 * 512));
        assert_eq!(look_up("03.1/00"), device("254:16", 8 * 512));
        assert_eq!(look_up("04"), None);
        assert_eq!(look_up("03.1"), None);
        assert_eq!(look_up("02/00"), None);
    }

    #[test]
    fn sysfs_in_another_form_is_refused() {
        let dir = machine();
        fs::write(dir.path().join("block/vda/dev"), "254:0 /dev/vdb").unwrap();
        let path: PciPath = "02".parse().unwrap();
        assert!(matches!(path.look_up(dir.path()), Err(DeviceError::Form { .. })));
        fs::create_dir(dir.path().join("devices/pci0000:00/0000:00:02.0/virtio9")).unwrap();
        assert!(matches!(path.look_up(dir.path()), Err(DeviceError::Ambiguous { found: 2, .. })));
    }
}
