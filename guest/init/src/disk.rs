//! The initdata disk, found by its first bytes among all block devices.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ah_policy::{InitData, MAX_PACKED_BYTES};

use crate::InitError;

const MAGIC: &[u8; 8] = b"initdata";
/// Header, document and padding to a sector; one byte more is read, so that a longer disk is seen to be longer.
const DISK_BYTES_MAX: usize = 16 + MAX_PACKED_BYTES + 512;
/// Most block devices that are looked at.
const DISKS_MAX: usize = 1024;

/// The initdata that the host handed over, or `None` when no disk has the magic.
///
/// # Errors
/// Two such disks, a disk that cannot be read, or one whose content is no initdata.
pub(crate) fn initdata(sysfs_block: &Path, dev: &Path) -> Result<Option<InitData>, InitError> {
    let mut found = None;
    for path in block_devices(sysfs_block, dev)? {
        let Some(bytes) = read_if_initdata(&path).map_err(InitError::file("read", &path))? else {
            continue;
        };
        if found.replace(bytes).is_some() {
            return Err(InitError::TwoInitDataDisks);
        }
    }
    found.map(|bytes| InitData::from_disk(&bytes)).transpose().map_err(InitError::InitData)
}

fn block_devices(sysfs_block: &Path, dev: &Path) -> Result<Vec<PathBuf>, InitError> {
    let fail = || InitError::file("list", sysfs_block);
    let mut paths = Vec::new();
    for entry in fs::read_dir(sysfs_block).map_err(fail())?.take(DISKS_MAX) {
        paths.push(dev.join(entry.map_err(fail())?.file_name()));
    }
    paths.sort();
    Ok(paths)
}

fn read_if_initdata(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut disk = File::open(path)?;
    let mut start = [0; 512];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match disk.read(rest)? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    let start = start.get(..filled).unwrap_or_default();
    if !start.starts_with(MAGIC) {
        return Ok(None);
    }
    let limit = DISK_BYTES_MAX.saturating_add(1).saturating_sub(start.len());
    let mut bytes = start.to_vec();
    disk.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn machine(disks: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in disks {
            fs::create_dir_all(dir.path().join("block").join(name)).unwrap();
            fs::create_dir_all(dir.path().join("dev")).unwrap();
            fs::write(dir.path().join("dev").join(name), bytes).unwrap();
        }
        dir
    }

    fn find(dir: &tempfile::TempDir) -> Result<Option<InitData>, InitError> {
        initdata(&dir.path().join("block"), &dir.path().join("dev"))
    }

    #[test]
    fn the_disk_is_found_by_magic_wherever_it_is() {
        let document = InitData::build("package agent_policy", &BTreeMap::new()).unwrap();
        let disk = document.to_disk();
        let dir = machine(&[("vda", &[0; 4096]), ("vdb", &disk), ("vdc", b""), ("vdd", b"init")]);
        assert_eq!(find(&dir).unwrap(), Some(document));
        let dir = machine(&[("vda", &[0; 4096])]);
        assert_eq!(find(&dir).unwrap(), None);
    }

    #[test]
    fn two_disks_and_a_disk_that_is_too_long_are_refused() {
        let disk = InitData::build("package agent_policy", &BTreeMap::new()).unwrap().to_disk();
        let dir = machine(&[("vda", &disk), ("vdb", &disk)]);
        assert!(matches!(find(&dir), Err(InitError::TwoInitDataDisks)));
        let mut long = disk;
        long.resize(DISK_BYTES_MAX + 1, 0);
        let dir = machine(&[("vda", &long)]);
        assert!(matches!(find(&dir), Err(InitError::InitData(_))));
    }
}
