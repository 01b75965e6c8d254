use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ah_guest_sys::device_mapper::{Access, MappedDevice, Target};
use ah_guest_sys::mount::{self, MountFlags};
use ah_guest_sys::{SysError, block, random};
use zeroize::Zeroizing;

use crate::ext4::{self, BLOCK_BYTES};
use crate::layout::{BLOCK_SECTORS, Layout, TAG_BYTES};
use crate::room::{Room, Stretch};
use crate::{Candidate, ScratchError};

/// AEGIS-128 takes a key of 128 bits.
const KEY_BYTES: usize = 16;
/// AEGIS-128 with a random nonce of 128 bits for each write: no count of writes brings two equal ones within reach, as the 96 bits of GCM
/// would after 2^32 (NIST SP 800-38D, 8.3).
const CIPHER: &str = "capi:aegis128-random";
/// Nothing of the disk outlives the guest: no write has to be flushed in order, no inode table wiped, and none read ahead that was
/// never written.
const EXT4_OPTIONS: &str = "nobarrier,noinit_itable,inode_readahead_blks=0";
/// Folder of the shared file system with the containers' writable layers.
const ROOTS: &str = "roots";
/// Folder of a file system in which a volume's files are.
const FILES: &str = "files";

/// The disk, encrypted and mounted. It stays until the guest ends.
#[derive(Debug)]
pub struct ScratchDisk {
    folder: PathBuf,
    crypt: (u32, u32),
    limited: Mutex<Limited>,
}

/// What has a limit of its own, in the second half.
#[derive(Debug)]
struct Limited {
    room: Room,
    /// How many there have been: each device has a name of its own.
    count: u32,
    parts: BTreeMap<Owner, LimitedPart>,
}

/// Whose files they are. Names of volumes and of containers may be the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Volume(String),
    Root(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(name) => write!(f, "volume {name:?}"),
            Self::Root(container) => write!(f, "root of container {container:?}"),
        }
    }
}

#[derive(Debug)]
struct LimitedPart {
    stretch: Stretch,
    mounted: MountedDevice,
}

impl ScratchDisk {
    /// Puts a fresh key over the disk and mounts its shared half below `folder`. Everything that was on it is lost.
    ///
    /// # Errors
    /// [`ScratchError`]; devices that were made stay, and nothing uses them.
    pub(crate) fn open(disk: &Candidate, folder: &Path) -> Result<Self, ScratchError> {
        let node = Path::new("/dev").join(&disk.name);
        let layout = Layout::of(sectors(&disk.name)?)?;
        let integrity = integrity(&node, &layout)?;
        let crypt = crypt(block::device_number(integrity.node())?, &layout)?;
        let crypt = block::device_number(crypt.node())?;
        let shared = folder.join("shared");
        let first = Stretch { start: 0, sectors: layout.shared };
        MountedDevice::make("scratch-shared", crypt, first, &shared).map_err(|(error, _)| error)?;
        make_folder(&shared.join(ROOTS))?;
        let second = layout.sectors.saturating_sub(layout.shared);
        let room = Room::new(Stretch { start: layout.shared, sectors: second });
        let limited = Mutex::new(Limited { room, count: 0, parts: BTreeMap::new() });
        Ok(Self { folder: folder.to_owned(), crypt, limited })
    }

    /// An empty folder for what a container writes into its root. With a limit it is a file system of its own, as for
    /// [`Self::volume_folder`].
    ///
    /// # Errors
    /// [`ScratchError::NoRoom`], or it cannot be made.
    pub fn root_folder(
        &self,
        container: &str,
        limit: Option<u64>,
    ) -> Result<PathBuf, ScratchError> {
        self.remove_root_folder(container)?;
        if let Some(limit) = limit {
            return self.limited_folder(Owner::Root(container.to_owned()), limit);
        }
        let folder = self.root_of(container);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Takes away what a container wrote into its root; one that wrote nothing is no error.
    ///
    /// # Errors
    /// Somebody still uses it, or it cannot be removed.
    pub fn remove_root_folder(&self, container: &str) -> Result<(), ScratchError> {
        self.remove_limited(&Owner::Root(container.to_owned()))?;
        remove_folder(&self.root_of(container))
    }

    fn root_of(&self, container: &str) -> PathBuf {
        self.folder.join("shared").join(ROOTS).join(container)
    }

    fn shared_volume(&self, name: &str) -> PathBuf {
        self.folder.join("shared").join(format!("volume-{name}"))
    }

    /// An empty folder for a volume. With a limit it is a file system of its own that holds at least so much, and hardly more; without, it
    /// shares the room of all that have none.
    ///
    /// # Errors
    /// [`ScratchError::NoRoom`], or a folder or file system that cannot be made.
    pub fn volume_folder(&self, name: &str, limit: Option<u64>) -> Result<PathBuf, ScratchError> {
        if let Some(limit) = limit {
            return self.limited_folder(Owner::Volume(name.to_owned()), limit);
        }
        let folder = self.shared_volume(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    fn limited_folder(&self, owner: Owner, limit: u64) -> Result<PathBuf, ScratchError> {
        let needed = ext4::blocks_for(limit).saturating_mul(BLOCK_SECTORS);
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.parts.contains_key(&owner) {
            return Err(ScratchError::Exists { owner: owner.to_string() });
        }
        let stretch = limited.room.take(needed).ok_or_else(|| ScratchError::NoRoom {
            owner: owner.to_string(),
            needed_bytes: needed.saturating_mul(512),
            left_bytes: limited.room.longest().saturating_mul(512),
        })?;
        limited.count = limited.count.saturating_add(1);
        let number = limited.count;
        let at = self.folder.join(format!("limited-{number}"));
        let made = MountedDevice::make(&format!("scratch-{number}"), self.crypt, stretch, &at);
        let mounted = made.map_err(|(error, stays)| {
            // A device that stays would share its sectors with the next volume's.
            if !stays {
                limited.room.give_back(stretch);
            }
            error
        })?;
        limited.parts.insert(owner, LimitedPart { stretch, mounted });
        drop(limited);
        let folder = at.join(FILES);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Takes a volume away, with all that is in it: its room is free for others. One that is not there is no error.
    ///
    /// # Errors
    /// Somebody still uses it; it stays, and so does what it takes.
    pub fn remove_volume(&self, name: &str) -> Result<(), ScratchError> {
        self.remove_limited(&Owner::Volume(name.to_owned()))?;
        remove_folder(&self.shared_volume(name))
    }

    /// What has no limit is not here, and no error.
    fn remove_limited(&self, owner: &Owner) -> Result<(), ScratchError> {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((owner, part)) = limited.parts.remove_entry(owner) else { return Ok(()) };
        let LimitedPart { stretch, mounted } = part;
        match mounted.remove() {
            Ok(()) => {
                limited.room.give_back(stretch);
                Ok(())
            }
            Err((mounted, error)) => {
                limited.parts.insert(owner, LimitedPart { stretch, mounted });
                Err(error.into())
            }
        }
    }
}

fn sectors(name: &str) -> Result<u64, ScratchError> {
    let path = Path::new("/sys/block").join(name).join("size");
    let text = fs::read_to_string(&path).map_err(ScratchError::file(&path))?;
    let form = |_| ScratchError::file(&path)(std::io::ErrorKind::InvalidData.into());
    text.trim_end().parse().map_err(form)
}

/// Room for a tag beside each block. A superblock that lies there from before, the host's or another boot's, would keep the device from
/// being made, or have it laid out otherwise; so it is wiped first, and dm-integrity makes one for these parameters.
///
/// That is no defence against a host that puts its own there between the wipe and the read, or answers the read with it: the disk is
/// the host's. Nothing in the superblock says that a sector is good. It holds sizes and places (interleave, length of the journal, sectors
/// provided) and flags; the kernel refuses what does not go with the table (Linux drivers/md/dm-integrity.c, `dm_integrity_ctr`): another
/// size of tags or blocks, a recalculation without a hash of its own, fewer sectors than asked for. What is left to the host is where tags and
/// data lie, and what a journal of its own writes there when the device is opened. Both are the host's to change at any time, and dm-crypt above
/// opens a sector only with a tag that was made under this boot's key for this sector's number. The kernel's reading of the superblock is code that
/// hostile bytes reach, as it is with any disk.
fn integrity(node: &Path, layout: &Layout) -> Result<MappedDevice, ScratchError> {
    let device = File::options().write(true).open(node).map_err(ScratchError::file(node))?;
    device.write_all_at(&[0; 4096], 0).map_err(ScratchError::file(node))?;
    device.sync_all().map_err(ScratchError::file(node))?;
    drop(device);
    let (major, minor) = block::device_number(node)?;
    // Direct mode: after a crash nothing is read again. One section is the smallest journal.
    let parameters = format!("{major}:{minor} 0 {TAG_BYTES} D 2 block_size:4096 journal_sectors:8");
    let target = Target { kind: "integrity", sectors: layout.sectors, parameters: &parameters };
    Ok(MappedDevice::create("scratch-tags", &target, Access::Writable)?)
}

/// The table line, with the key in hex. It has all its room from the start: a text that grows leaves copies of the key behind where
/// nothing wipes them.
fn crypt_parameters(key: &[u8; KEY_BYTES], (major, minor): (u32, u32)) -> Zeroizing<String> {
    let behind = format!(" 0 {major}:{minor} 0 2 integrity:{TAG_BYTES}:aead sector_size:4096");
    let room = CIPHER.len().saturating_add(2 * KEY_BYTES + 1).saturating_add(behind.len());
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(CIPHER);
    text.push(' ');
    for byte in key {
        // Into the room that is there; digits are no failure of a String.
        let _ = write!(*text, "{byte:02x}");
    }
    text.push_str(&behind);
    text
}

fn crypt((major, minor): (u32, u32), layout: &Layout) -> Result<MappedDevice, ScratchError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random::fill(&mut *key)?;
    let parameters = crypt_parameters(&key, (major, minor));
    let target = Target { kind: "crypt", sectors: layout.sectors, parameters: &parameters };
    Ok(MappedDevice::create("scratch-crypt", &target, Access::WritableSecret)?)
}

/// A stretch of the encrypted device with a file system of its own, mounted.
#[derive(Debug)]
struct MountedDevice {
    device: MappedDevice,
    folder: PathBuf,
    /// Not any more when a removal got no further.
    mounted: bool,
}

impl MountedDevice {
    /// On a failure, also whether the device may stay.
    fn make(
        name: &str,
        (major, minor): (u32, u32),
        Stretch { start, sectors }: Stretch,
        folder: &Path,
    ) -> Result<Self, (ScratchError, bool)> {
        let parameters = format!("{major}:{minor} {start}");
        let target = Target { kind: "linear", sectors, parameters: &parameters };
        // Whether one that failed half made is gone cannot be told, so its room is given to nobody.
        let device = MappedDevice::create(name, &target, Access::Writable)
            .map_err(|error| (error.into(), true))?;
        match format_and_mount(device.node(), sectors, folder) {
            Ok(()) => Ok(Self { device, folder: folder.to_owned(), mounted: true }),
            Err(error) => {
                let stays = device.remove().is_err();
                let _ = fs::remove_dir(folder);
                Err((error, stays))
            }
        }
    }

    fn remove(self) -> Result<(), (Self, SysError)> {
        let Self { device, folder, mounted } = self;
        if mounted && let Err(error) = mount::unmount(&folder) {
            return Err((Self { device, folder, mounted }, error));
        }
        match device.remove() {
            Ok(()) => {
                let _ = fs::remove_dir(&folder);
                Ok(())
            }
            // Another attempt finds it unmounted.
            Err((device, error)) => Err((Self { device, folder, mounted: false }, error)),
        }
    }
}

fn format_and_mount(node: &Path, sectors: u64, folder: &Path) -> Result<(), ScratchError> {
    let mut seed = [0; 16];
    random::fill(&mut seed)?;
    let pieces = ext4::format(sectors / BLOCK_SECTORS, &seed).map_err(ScratchError::Format)?;
    let file = File::options().write(true).open(node).map_err(ScratchError::file(node))?;
    for piece in pieces {
        let offset = piece.block.saturating_mul(BLOCK_BYTES);
        file.write_all_at(&piece.bytes, offset).map_err(ScratchError::file(node))?;
    }
    file.sync_all().map_err(ScratchError::file(node))?;
    drop(file);
    make_folder(folder)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    let source = node.display().to_string();
    Ok(mount::filesystem("ext4", &source, folder, flags, EXT4_OPTIONS)?)
}

/// It follows no link.
fn remove_folder(path: &Path) -> Result<(), ScratchError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(ScratchError::file(path)),
    }
}

/// Folders above it are the agent's alone, too.
fn make_folder(path: &Path) -> Result<(), ScratchError> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700).recursive(true).create(path).map_err(ScratchError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_key_is_written_without_growing() {
        let key = std::array::from_fn(|index| u8::try_from(index).unwrap() * 17);
        let text = crypt_parameters(&key, (u32::MAX, u32::MAX));
        assert_eq!(
            text.as_str(),
            "capi:aegis128-random 00112233445566778899aabbccddeeff 0 4294967295:4294967295 0 2 integrity:32:aead sector_size:4096"
        );
        assert_eq!(text.capacity(), text.len(), "no other copy of the text was made");
    }
}
