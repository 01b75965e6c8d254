use std::io;
use std::path::PathBuf;

use ah_digest::Sha256;
use ah_guest_sys::SysError;
use ah_verity::VerityError;

use crate::PciPath;

/// A layer as people find it again: its place in the root, what the policy expects, where the host put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlace {
    /// Position, 1 is the top.
    pub number: usize,
    /// Layers in all.
    pub count: usize,
    /// Root hash that the policy expects.
    pub root_hash: Sha256,
    /// Where the host said that the layer is.
    pub device: PciPath,
}

impl std::fmt::Display for LayerPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, count, root_hash, device } = self;
        write!(f, "layer {number} of {count} from the top (root hash {root_hash}, pci {device})")
    }
}

/// Why there is no root for a container. Nothing stays mounted after it.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A root needs at least one layer: an empty one would be whatever the host copies in.
    #[error("root has no layers, expected at least 1")]
    NoLayers,
    /// More layers than overlayfs takes.
    #[error("root has {found} layers, expected at most {expected}")]
    TooManyLayers {
        /// Count found.
        found: usize,
        /// Most that is accepted.
        expected: usize,
    },
    /// One layer could not be opened.
    #[error("{layer}")]
    Layer {
        /// Which one.
        layer: Box<LayerPlace>,
        /// What went wrong.
        source: LayerError,
    },
    /// Assembling the layers failed.
    #[error("assemble the root at {target}")]
    Assemble {
        /// Where the root should have come.
        target: PathBuf,
        /// The kernel's refusal.
        source: SysError,
    },
    /// A folder of the root could not be made.
    #[error("prepare {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The kernel's refusal.
        source: io::Error,
    },
}

/// Why a layer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The host gave no usable block device.
    #[error("the host's device cannot be used")]
    Device(#[source] DeviceError),
    /// The parameters make no verity device.
    #[error("verity parameters are out of range")]
    Parameters(#[source] VerityError),
    /// The device is shorter than the layer.
    #[error("device has {found_bytes} bytes, expected at least {expected_bytes}")]
    TooShort {
        /// Length found.
        found_bytes: u64,
        /// Length of data, superblock and hash tree.
        expected_bytes: u64,
    },
    /// The kernel made no verity device.
    #[error("dm-verity device was not created")]
    Verity(#[source] SysError),
    /// The bytes on the device are not those under the root hash: the host, or what it stores, changed them.
    #[error(
        "dm-verity in the guest kernel refused the device's bytes: a block does not match the root hash"
    )]
    Corrupt(#[source] SysError),
    /// The bytes match the root hash but are no file system.
    #[error("verified bytes are not mounted as erofs")]
    Mount(#[source] SysError),
    /// The folder for the layer could not be made.
    #[error("prepare {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The kernel's refusal.
        source: io::Error,
    },
}

/// Why a PCI path led to no block device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device, or it has no such child, when the time was up.
    #[error("no block device at pci path {path} after {waited_ms} ms")]
    NotThere {
        /// The path looked for.
        path: PciPath,
        /// How long it was looked for.
        waited_ms: u128,
    },
    /// Several children where one is expected.
    #[error("{place} has {found} entries, expected 1")]
    Ambiguous {
        /// Folder in sysfs.
        place: PathBuf,
        /// Count found.
        found: usize,
    },
    /// Something in sysfs has an unexpected form.
    #[error("{place} has an unexpected form: {found:?}")]
    Form {
        /// File or folder in sysfs.
        place: PathBuf,
        /// The text found, at most 64 characters.
        found: String,
    },
    /// sysfs could not be read.
    #[error("read {place}")]
    Sysfs {
        /// File or folder in sysfs.
        place: PathBuf,
        /// The kernel's refusal.
        source: io::Error,
    },
}
