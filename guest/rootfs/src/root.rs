//! The root of a container: verified layers, and where the policy allows it something writable above them.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_guest_sys::mount::{self, MountFlags, Upper};

use crate::{Layer, LayerPlace, LayerSource, LayerStore, RootError};

/// Most layers of one root; overlayfs takes 500 (fs/overlayfs/params.h, OVL_MAX_STACK).
const LAYERS_MAX: usize = 500;

/// What the container may do with its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootAccess {
    /// The layers as they are.
    ReadOnly,
    /// Changes go to guest memory and are gone with the container.
    WritableInMemory {
        /// Most bytes that the changes may take.
        size_bytes: u64,
    },
    /// Changes go to this empty folder, which only the guest reads and writes, and are gone with the container.
    WritableIn(PathBuf),
}

/// What is writable, as it is taken away.
#[derive(Debug)]
enum Changes {
    Memory(PathBuf),
    Folder(PathBuf),
}

/// A layer of which dm-verity refused a block while the container ran.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: dm-verity in the guest kernel refused a block of the device, it does not match the root hash"
)]
pub struct Corruption(pub LayerPlace);

/// A mounted root of which every byte below the writable part is under a root hash from the policy.
///
/// Only [`VerifiedRoot::assemble`] makes one. Dropping it unmounts it.
#[derive(Debug)]
pub struct VerifiedRoot {
    path: PathBuf,
    changes: Option<Changes>,
    layers: Vec<Arc<Layer>>,
}

impl VerifiedRoot {
    /// Opens `layers` (top first) and mounts them on `target`, a folder that is made when it is missing.
    ///
    /// Changes in memory are in a tmpfs beside `target`, `<target's parent>/scratch`.
    ///
    /// # Errors
    /// [`RootError`], naming the layer; nothing of this root stays mounted.
    pub fn assemble(
        store: &LayerStore,
        layers: &[LayerSource],
        target: &Path,
        access: RootAccess,
    ) -> Result<Self, RootError> {
        if layers.is_empty() {
            return Err(RootError::NoLayers);
        }
        if layers.len() > LAYERS_MAX {
            return Err(RootError::TooManyLayers { found: layers.len(), expected: LAYERS_MAX });
        }
        let layers = open_layers(store, layers)?;
        make_folder(target)?;
        let mut root = Self { path: target.to_owned(), changes: None, layers };
        let upper = match access {
            RootAccess::ReadOnly => None,
            RootAccess::WritableInMemory { size_bytes } => Some(root.make_memory(size_bytes)?),
            RootAccess::WritableIn(folder) => {
                root.changes = Some(Changes::Folder(folder.clone()));
                Some(root.make_upper(&folder)?)
            }
        };
        let mut lower = lower_folders(&root.layers);
        if lower.len() == 1 {
            lower.push(store.empty_folder());
            make_folder(&store.empty_folder())?;
        }
        mount::overlay(&lower, upper.as_ref(), target)
            .map_err(|source| RootError::Assemble { target: target.to_owned(), source })?;
        Ok(root)
    }

    /// Where the root is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The topmost layer of which dm-verity refused a block so far.
    ///
    /// Ask when a container ends in error: a refused block reaches the workload as an I/O error or SIGBUS only.
    pub fn corruption(&self) -> Option<Corruption> {
        let count = self.layers.len();
        let corrupt = (1..).zip(&self.layers).find(|(_, layer)| layer.is_corrupt());
        corrupt.map(|(number, layer)| Corruption(place(number, count, layer)))
    }

    /// Reads all layers whole, so that dm-verity checks every block now and not when it is used.
    ///
    /// For a thread that runs beside the container: nothing unverified is ever used without it, it only tells sooner.
    ///
    /// # Errors
    /// The first layer of which a block is refused.
    pub fn check_whole(&self) -> Result<(), Corruption> {
        let unread = self.layers.iter().any(|layer| layer.read_whole().is_err());
        match self.corruption() {
            Some(corruption) if unread => Err(corruption),
            _ => Ok(()),
        }
    }

    fn make_memory(&mut self, size_bytes: u64) -> Result<Upper, RootError> {
        let scratch = self.path.with_file_name("scratch");
        make_folder(&scratch)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount::filesystem(
            "tmpfs",
            "scratch",
            &scratch,
            flags,
            &format!("mode=0700,size={size_bytes}"),
        )
        .map_err(|source| RootError::Assemble { target: self.path.clone(), source })?;
        self.changes = Some(Changes::Memory(scratch.clone()));
        self.make_upper(&scratch)
    }

    fn make_upper(&self, folder: &Path) -> Result<Upper, RootError> {
        let upper = Upper { upper: folder.join("upper"), work: folder.join("work") };
        make_folder(&upper.work)?;
        make_folder(&upper.upper)?;
        if let Some(top) = self.layers.first() {
            copy_ownership(top.folder(), &upper.upper)?;
        }
        Ok(upper)
    }
}

impl Drop for VerifiedRoot {
    fn drop(&mut self) {
        let _ = mount::unmount(&self.path).or_else(|_| mount::detach(&self.path));
        match &self.changes {
            None => {}
            Some(Changes::Memory(scratch)) => {
                let _ = mount::unmount(scratch).or_else(|_| mount::detach(scratch));
                let _ = fs::remove_dir(scratch);
            }
            // What a container wrote is removed without following its links.
            Some(Changes::Folder(folder)) => drop(fs::remove_dir_all(folder)),
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn open_layers(store: &LayerStore, sources: &[LayerSource]) -> Result<Vec<Arc<Layer>>, RootError> {
    let count = sources.len();
    let open = |(number, source): (usize, &LayerSource)| {
        store.open(source).map_err(|error| {
            let (root_hash, device) = (source.verity.root_hash, source.device.clone());
            let layer = Box::new(LayerPlace { number, count, root_hash, device });
            RootError::Layer { layer, source: error }
        })
    };
    (1..).zip(sources).map(open).collect()
}

fn place(number: usize, count: usize, layer: &Layer) -> LayerPlace {
    LayerPlace { number, count, root_hash: *layer.root_hash(), device: layer.source().clone() }
}

/// overlayfs refuses a folder given twice. The lower of two equal layers adds nothing: whatever it holds, the upper one holds too.
fn lower_folders(layers: &[Arc<Layer>]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::with_capacity(layers.len());
    for layer in layers {
        if !folders.iter().any(|folder| folder == layer.folder()) {
            folders.push(layer.folder().to_owned());
        }
    }
    folders
}

/// The root folder of an overlay has the owner and mode of its upper folder: take those of the image.
fn copy_ownership(from: &Path, to: &Path) -> Result<(), RootError> {
    let fail = |source| RootError::Folder { path: to.to_owned(), source };
    let metadata = fs::metadata(from).map_err(fail)?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(fail)?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).map_err(fail)
}

fn make_folder(path: &Path) -> Result<(), RootError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| RootError::Folder { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_root_without_layers() {
        let target = tempfile::tempdir().unwrap();
        let result =
            VerifiedRoot::assemble(&LayerStore::new(), &[], target.path(), RootAccess::ReadOnly);
        assert!(matches!(result, Err(RootError::NoLayers)));
    }
}
