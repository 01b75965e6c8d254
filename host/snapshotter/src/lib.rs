//! containerd's snapshots as folders that every runtime can mount, and as verity block images for confidential ones.
//!
//! ```text
//! <root>/lock                     held by the one process that uses the folder
//! <root>/snapshots/<id>.json      a snapshot: name, parent, kind, labels; its presence says that the snapshot is there
//! <root>/snapshots/<id>/fs        its files: what containerd unpacked, or what a container writes
//! <root>/snapshots/<id>/work      overlayfs's own
//! <root>/snapshots/<id>/layers.json   its block images, for the runtime (ah-layers, SnapshotLayers)
//! <root>/layers/v<N>/…            the block images (ah-layers, LayerStore)
//! ```
//!
//! A layer is unpacked by containerd as with any other snapshotter, so that containers without a VM, and containerd's own
//! steps that mount a snapshot on the host, find ordinary files. Once it is committed its blob is found in containerd's
//! content store and converted, in the background: containerd holds its database's write lock while it commits. Who
//! prepares a snapshot for a container waits until all layers below it are converted. A layer that cannot be converted
//! does not keep other containers from running: the reason is written down beside the snapshot, where the runtime of
//! confidential pods finds it.
#![forbid(unsafe_code)]

mod catalog;
mod convert;
mod filter;
mod mounts;
mod name;
mod service;
mod snapshot;
pub mod spans;
mod store;
mod trace;
mod usage;

use std::path::Path;
use std::sync::Arc;

use ah_containerd_api::Client;
use ah_layers::{LayerStore, LayersError};
use ah_metrics::Metrics;

use catalog::Catalog;
use convert::Converter;

pub use service::Service;
pub use store::{Store, StoreError};

/// Why the snapshotter does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The snapshots could not be read.
    #[error("snapshots not opened")]
    Store(#[from] StoreError),
    /// The block images could not be read.
    #[error("block images not opened")]
    Layers(#[from] LayersError),
}

/// Opens the snapshotter's folder and begins to convert what is not converted yet. Must be called inside a tokio runtime.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    root: &Path,
    containerd: &Path,
    conversions: usize,
    metrics: Arc<Metrics>,
    spans: Option<spans::Spans>,
) -> Result<Service, OpenError> {
    let store = Arc::new(Store::open(root)?);
    let layers = LayerStore::open(root.join("layers"))?;
    // What was being converted when the program ended.
    let needed = store.layers();
    layers.retain(|diff_id| needed.contains(diff_id))?;
    let converter = Converter::new(
        Arc::clone(&store),
        layers,
        Catalog::new(Client::new(containerd)),
        conversions,
        metrics,
    );
    let service = Service::new(store, converter, spans);
    service.resume();
    Ok(service)
}
