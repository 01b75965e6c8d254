//! Which disk the host means.

use std::fs;
use std::path::Path;

/// Serial of the disk (virtio-blk).
const SERIAL: &str = "scratch";
/// Most block devices that are looked at.
const DISKS_MAX: usize = 1024;

/// A disk that the host calls the scratch disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Name in `/sys/block`, such as `vdb`.
    pub name: String,
}

/// The first disk by name with the serial `scratch`, if there is one.
///
/// The serial is the host's word, and needs to be no more: whichever disk it is, only what this boot wrote comes back from it.
pub fn find(sysfs_block: &Path) -> Option<Candidate> {
    let entries = fs::read_dir(sysfs_block).ok()?.take(DISKS_MAX).flatten();
    let is_scratch = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("serial"))
            .is_ok_and(|serial| serial.trim_end() == SERIAL)
    };
    let names = entries.filter(is_scratch).filter_map(|entry| entry.file_name().into_string().ok());
    names.min().map(|name| Candidate { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, serial: Option<&str>| {
            let disk = dir.path().join(name);
            fs::create_dir(&disk).unwrap();
            if let Some(text) = serial {
                fs::write(disk.join("serial"), text).unwrap();
            }
        };
        add("vda", Some("initdata\n"));
        add("dm-0", None);
        assert_eq!(find(dir.path()), None);
        add("vdc", Some("scratch"));
        add("vdb", Some("scratch\n"));
        add("vdd", Some("scratch2"));
        assert_eq!(find(dir.path()), Some(Candidate { name: "vdb".into() }));
        assert_eq!(find(&dir.path().join("none")), None);
    }
}
