//! Where what containers write goes: the scratch disk, or the guest's memory where the host attached none.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use ah_container::ContainerId;
use ah_guest_sys::mount::{self, MountFlags};
use ah_rootfs::RootAccess;
use ah_scratch::ScratchDisk;

use super::Guest;
use super::checks::{Medium, Volume};
use crate::console::{Level, tell};
use crate::failure::{Failure, chain};

/// Permissions of a volume that names none.
const DEFAULT_MODE: u32 = 0o777;

impl Guest {
    /// Where the container's changes of its root go, and how many bytes they may come to.
    pub(super) fn root_access(
        &self,
        id: &ContainerId,
        limit: Option<u64>,
    ) -> Result<RootAccess, Failure> {
        match self.scratch_disk()? {
            None => {
                let size_bytes = limit.unwrap_or(u64::MAX).min(half_of_memory());
                Ok(RootAccess::WritableInMemory { size_bytes })
            }
            Some(disk) => disk
                .root_folder(id.as_str(), limit)
                .map(RootAccess::WritableIn)
                .map_err(|e| Failure::effect("make the container's scratch folder", &e)),
        }
    }

    /// Makes the volume, unless a container that had it has made it.
    pub(super) fn make_volume(&self, volume: &Volume) -> Result<(), Failure> {
        if volume.folder.exists() {
            return Ok(());
        }
        let disk = match volume.medium {
            Medium::Memory => None,
            Medium::Disk => self.scratch_disk()?,
        };
        fs::create_dir_all(&volume.folder).map_err(|e| Failure::effect("make a volume", &e))?;
        let made = match disk {
            Some(disk) => on_disk(volume, disk),
            None => in_memory(volume),
        };
        made.and_then(|()| set_owner(volume)).inspect_err(|_| self.remove_volume(&volume.folder))
    }

    /// Takes a volume away and gives back the room that it has. Best effort: where somebody still uses it, it stays.
    pub(super) fn remove_volume(&self, folder: &Path) {
        let _ = mount::detach(folder);
        let _ = fs::remove_dir(folder);
        if let (Ok(Some(disk)), Some(name)) = (self.scratch_disk(), name(folder))
            && let Err(error) = disk.remove_volume(name)
        {
            tell(Level::Error, &format!("volume {name:?} stays: {}", chain(&error)));
        }
    }

    /// Gives back what a container's root had of the disk.
    pub(super) fn remove_root_folder(&self, id: &ContainerId) {
        if let Ok(Some(disk)) = self.scratch_disk()
            && let Err(error) = disk.remove_root_folder(id.as_str())
        {
            tell(Level::Error, &format!("root of container {id} stays: {}", chain(&error)));
        }
    }

    fn scratch_disk(&self) -> Result<Option<&ScratchDisk>, Failure> {
        self.scratch.disk().map_err(|e| Failure::effect("open the scratch disk", e))
    }
}

/// By which the disk knows it.
fn name(folder: &Path) -> Option<&str> {
    folder.file_name().and_then(|name| name.to_str())
}

fn on_disk(volume: &Volume, disk: &ScratchDisk) -> Result<(), Failure> {
    let name = name(&volume.folder).unwrap_or_default();
    // As with tmpfs, a size of 0 is none.
    let limit = volume.size_bytes.filter(|bytes| *bytes > 0);
    let source =
        disk.volume_folder(name, limit).map_err(|e| Failure::effect("make a volume", &e))?;
    mount::bind(&source, &volume.folder).map_err(|e| Failure::effect("mount a volume", &e))
}

fn in_memory(volume: &Volume) -> Result<(), Failure> {
    let size = volume.size_bytes.map(|bytes| format!("size={bytes}")).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount::filesystem("tmpfs", "tmpfs", &volume.folder, flags, &size)
        .map_err(|e| Failure::effect("mount a volume", &e))
}

fn set_owner(volume: &Volume) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::effect("make a volume", &e);
    let mut mode = volume.mode.unwrap_or(DEFAULT_MODE);
    if let Some(group) = volume.group {
        chown(&volume.folder, None, Some(group)).map_err(failed)?;
        // What containers make in it is the group's, too (Kubernetes, fsGroup).
        mode |= 0o2000;
    }
    set_mode(&volume.folder, mode).map_err(failed)
}

fn set_mode(folder: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

/// A container that fills its root must not take the whole guest with it.
fn half_of_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    info.totalram.saturating_mul(unit) / 2
}
