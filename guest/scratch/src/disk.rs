use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ah_guest_sys::device_mapper::{Access, MappedDevice, Target};
use ah_guest_sys::mount::{self, MountFlags};
use ah_guest_sys::{block, random};
use zeroize::Zeroizing;

use crate::ext4::{self, BLOCK_BYTES};
use crate::layout::{BLOCK_SECTORS, Layout, TAG_BYTES};
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
    layout: Layout,
    limited: Mutex<Limited>,
}

/// Volumes with a limit of their own: how much of the second half they have taken.
#[derive(Debug, Default)]
struct Limited {
    count: u32,
    taken_sectors: u64,
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
        file_system("scratch-shared", crypt, 0, layout.shared, &shared)?;
        make_folder(&shared.join(ROOTS))?;
        Ok(Self { folder: folder.to_owned(), crypt, layout, limited: Mutex::default() })
    }

    /// An empty folder for what a container writes into its root.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn root_folder(&self, container: &str) -> Result<PathBuf, ScratchError> {
        let folder = self.folder.join("shared").join(ROOTS).join(container);
        // Of an attempt to make this container that failed.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(ScratchError::file(&folder))?;
        }
        make_folder(&folder)?;
        Ok(folder)
    }

    /// An empty folder for a volume. With a limit it is a file system of its own that holds at least so much, and hardly more; without, it
    /// shares the room of all that have none.
    ///
    /// # Errors
    /// [`ScratchError::NoRoom`], or a folder or file system that cannot be made.
    pub fn volume_folder(&self, name: &str, limit: Option<u64>) -> Result<PathBuf, ScratchError> {
        let Some(limit) = limit else {
            let folder = self.folder.join("shared").join(format!("volume-{name}"));
            make_folder(&folder)?;
            return Ok(folder);
        };
        let needed = ext4::blocks_for(limit).saturating_mul(BLOCK_SECTORS);
        let (number, start) = self.take(name, needed)?;
        let at = self.folder.join(format!("limited-{number}"));
        file_system(&format!("scratch-{number}"), self.crypt, start, needed, &at)?;
        let folder = at.join(FILES);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// A stretch of the second half: its number and first sector.
    fn take(&self, volume: &str, needed: u64) -> Result<(u32, u64), ScratchError> {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.layout.shared.saturating_add(limited.taken_sectors);
        let left = self.layout.sectors.saturating_sub(start);
        if needed > left {
            return Err(ScratchError::NoRoom {
                volume: volume.to_owned(),
                needed_bytes: needed.saturating_mul(512),
                left_bytes: left.saturating_mul(512),
            });
        }
        limited.taken_sectors = limited.taken_sectors.saturating_add(needed);
        limited.count = limited.count.saturating_add(1);
        Ok((limited.count, start))
    }
}

fn sectors(name: &str) -> Result<u64, ScratchError> {
    let path = Path::new("/sys/block").join(name).join("size");
    let text = fs::read_to_string(&path).map_err(ScratchError::file(&path))?;
    let form = |_| ScratchError::file(&path)(std::io::ErrorKind::InvalidData.into());
    text.trim_end().parse().map_err(form)
}

/// Room for a tag beside each block. A superblock that the host put there must not be believed, so it is wiped first: dm-integrity then
/// makes one for these parameters. What it reads back later is layout only; each tag is checked by dm-crypt.
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

fn crypt((major, minor): (u32, u32), layout: &Layout) -> Result<MappedDevice, ScratchError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random::fill(&mut *key)?;
    let hex = Zeroizing::new(key.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let parameters = Zeroizing::new(format!(
        "{CIPHER} {} 0 {major}:{minor} 0 2 integrity:{TAG_BYTES}:aead sector_size:4096",
        *hex
    ));
    let target = Target { kind: "crypt", sectors: layout.sectors, parameters: &parameters };
    Ok(MappedDevice::create("scratch-crypt", &target, Access::WritableSecret)?)
}

/// Makes and mounts a file system on a stretch of the encrypted device.
fn file_system(
    name: &str,
    (major, minor): (u32, u32),
    start: u64,
    sectors: u64,
    folder: &Path,
) -> Result<(), ScratchError> {
    let parameters = format!("{major}:{minor} {start}");
    let target = Target { kind: "linear", sectors, parameters: &parameters };
    let device = MappedDevice::create(name, &target, Access::Writable)?;
    let mut seed = [0; 16];
    random::fill(&mut seed)?;
    let pieces = ext4::format(sectors / BLOCK_SECTORS, &seed).map_err(ScratchError::Format)?;
    let node = device.node();
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

/// Folders above it are the agent's alone, too.
fn make_folder(path: &Path) -> Result<(), ScratchError> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700).recursive(true).create(path).map_err(ScratchError::file(path))
}
