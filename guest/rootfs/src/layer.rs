//! One image layer: dm-verity and EROFS on the host's device, kept once for all containers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ah_digest::Sha256;
use ah_guest_sys::SysError;
use ah_guest_sys::device_mapper::{Access, MappedDevice, Target};
use ah_guest_sys::mount::{self, MountFlags};
use ah_verity::VerityInfo;

use crate::pci::BlockDevice;
use crate::{LayerError, PciPath};

/// Where layers are mounted, each in a folder named by its root hash.
const LAYERS: &str = "/run/kata-containers/layers";
/// How long a disk that sysfs shows may take until it can be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_POLL: Duration = Duration::from_millis(2);
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A layer to open: what the policy expects, and where the host says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSource {
    /// Where the host put it.
    pub device: PciPath,
    /// Root hash, length and salt; from a permitted request.
    pub verity: VerityInfo,
}

/// An open layer. Dropping the last handle unmounts it and takes its verity device away.
#[derive(Debug)]
pub struct Layer {
    root_hash: Sha256,
    source: PciPath,
    folder: PathBuf,
    /// `None` only while being dropped.
    device: Option<MappedDevice>,
    shared: Arc<Shared>,
}

/// The layers that are open or being closed. An entry goes when its layer is gone from the kernel, too.
#[derive(Debug, Default)]
struct Shared {
    layers: Mutex<BTreeMap<Sha256, Weak<Layer>>>,
    closed: Condvar,
}

/// All open layers of this guest, by root hash.
#[derive(Debug)]
pub struct LayerStore {
    sysfs: PathBuf,
    folder: PathBuf,
    shared: Arc<Shared>,
}

impl Default for LayerStore {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerStore {
    /// A store that mounts below `/run/kata-containers/layers`.
    pub fn new() -> Self {
        Self { sysfs: "/sys".into(), folder: LAYERS.into(), shared: Arc::default() }
    }

    /// An empty folder, the lowest layer of a root that has only one: overlayfs takes no fewer than two without an upper folder.
    pub(crate) fn empty_folder(&self) -> PathBuf {
        self.folder.join("empty")
    }

    /// Where the layer with this root hash is mounted while it is open.
    pub fn mount_point(&self, root_hash: &Sha256) -> PathBuf {
        self.folder.join(root_hash.to_string())
    }

    /// The layer with `source`'s root hash, opened on first use.
    ///
    /// An open layer is shared wherever the host says that another copy is: equal root hash, equal bytes.
    ///
    /// # Errors
    /// [`LayerError`]; nothing stays mounted.
    pub(crate) fn open(&self, source: &LayerSource) -> Result<Arc<Layer>, LayerError> {
        let root_hash = source.verity.root_hash;
        // Held while opening, so that two containers starting at once open a layer once.
        let mut layers = self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(layer) = layers.get(&root_hash) {
            if let Some(layer) = layer.upgrade() {
                return Ok(layer);
            }
            // Its last handle is being dropped on another thread, and device and folder have the name that is needed here.
            layers = self.shared.closed.wait(layers).unwrap_or_else(PoisonError::into_inner);
        }
        let device = source.device.block_device(&self.sysfs).map_err(LayerError::Device)?;
        let layer = Arc::new(Layer::open(
            source,
            &device,
            self.mount_point(&root_hash),
            Arc::clone(&self.shared),
        )?);
        layers.insert(root_hash, Arc::downgrade(&layer));
        Ok(layer)
    }
}

impl Layer {
    /// The root hash under which every byte of this layer was or will be checked.
    pub fn root_hash(&self) -> &Sha256 {
        &self.root_hash
    }

    /// Where the host said that the layer is.
    pub fn source(&self) -> &PciPath {
        &self.source
    }

    /// The folder where the layer's files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// True when dm-verity has refused a block of this layer since it was opened, or cannot say any more.
    pub fn is_corrupt(&self) -> bool {
        self.device.as_ref().is_none_or(is_corrupt)
    }

    /// Reads every block, so that dm-verity checks it now: 65 instructions a byte without SHA-NI.
    ///
    /// # Errors
    /// The first read that failed; [`Layer::is_corrupt`] tells whether dm-verity refused it.
    pub(crate) fn read_whole(&self) -> std::io::Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        let mut file = File::open(device.node())?;
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn open(
        source: &LayerSource,
        device: &BlockDevice,
        folder: PathBuf,
        shared: Arc<Shared>,
    ) -> Result<Self, LayerError> {
        let verity = source.verity.checked().map_err(LayerError::Parameters)?;
        let expected_bytes = verity.image_bytes();
        if device.size_bytes < expected_bytes {
            return Err(LayerError::TooShort { found_bytes: device.size_bytes, expected_bytes });
        }
        let name = format!("layer-{}", verity.root_hash);
        let target = Target {
            kind: "verity",
            sectors: verity.data_sectors(),
            parameters: &verity.table_parameters(&device.number),
        };
        let mapped = map(&name, &target).map_err(LayerError::Verity)?;
        match mount_checked(&mapped, &folder) {
            Ok(()) => {
                let (root_hash, source) = (verity.root_hash, source.device.clone());
                Ok(Self { root_hash, source, folder, device: Some(mapped), shared })
            }
            Err(error) => {
                let _ = mapped.remove();
                Err(error)
            }
        }
    }
}

/// A disk that was just plugged in is in sysfs a moment before it can be opened (Linux block/genhd.c, device_add_disk: the
/// device is added first, the block device last); device-mapper answers ENXIO in between.
fn map(name: &str, target: &Target<'_>) -> Result<MappedDevice, SysError> {
    let started = Instant::now();
    loop {
        match MappedDevice::create(name, target, Access::ReadOnly) {
            Err(error) if is_coming(&error) && started.elapsed() < OPEN_TIMEOUT => {
                std::thread::sleep(OPEN_POLL);
            }
            other => return other,
        }
    }
}

fn is_coming(error: &SysError) -> bool {
    error.errno() == Some(rustix::io::Errno::NXIO.raw_os_error())
}

impl Drop for Layer {
    fn drop(&mut self) {
        let unmounted = mount::unmount(&self.folder).or_else(|_| mount::detach(&self.folder));
        if let (Ok(()), Some(device)) = (unmounted, self.device.take()) {
            let _ = device.remove();
            let _ = fs::remove_dir(&self.folder);
        }
        let mut layers = self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.remove(&self.root_hash);
        self.shared.closed.notify_all();
    }
}

fn is_corrupt(device: &MappedDevice) -> bool {
    // Anything but a clear "V" (verified so far) counts as corrupt.
    !matches!(device.status().as_deref().map(str::trim_end), Ok("V"))
}

fn mount_checked(device: &MappedDevice, folder: &Path) -> Result<(), LayerError> {
    fs::create_dir_all(folder)
        .map_err(|source| LayerError::Folder { path: folder.to_owned(), source })?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let node = device.node().display().to_string();
    mount::filesystem("erofs", &node, folder, flags, "").map_err(|e| {
        let _ = fs::remove_dir(folder);
        match is_corrupt(device) {
            true => LayerError::Corrupt(e),
            false => LayerError::Mount(e),
        }
    })
}
