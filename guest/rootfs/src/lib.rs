//! A block device opened through dm-verity, EROFS and overlayfs becomes a VerifiedRoot.
//!
//! The host hands over block devices and says at which PCI path each is. Which layers a container has, and in which
//! order, comes from the policy: the root hashes in a [`LayerSource`] are taken from a request that permit
//! accepted. The kernel then refuses every block that is not under its root hash, whenever it is read.
//!
//! Order of events for one layer: PCI path -> block device (sysfs) -> size check -> dm-verity, read-only -> EROFS,
//! read-only -> a folder named by the root hash. Layers are shared by all containers that name the same root hash.
#![forbid(unsafe_code)]

mod error;
mod layer;
mod pci;
mod root;

pub use error::{DeviceError, LayerError, LayerPlace, RootError};
pub use layer::{Layer, LayerSource, LayerStore};
pub use pci::{PciPath, PciPathError};
pub use root::{Corruption, RootAccess, VerifiedRoot};
