//! OCI layers to read-only verity block images, cached by diff id and conversion version.
//!
//! ```text
//! <dir>/v<conversion version>/<diff id>.image   the layer block image, mode 0444
//! <dir>/v<conversion version>/<diff id>.json    what opens it; its presence says that the image is complete
//! <dir>/v<conversion version>/<diff id>.lock    held while the layer is converted
//! ```
//!
//! The cache saves time and is no authority: who wants to know what a layer must be has the root hash from the policy,
//! and the guest checks every block that it reads against it.
#![forbid(unsafe_code)]

mod check;
mod record;
mod snapshot;
mod store;

pub use check::CheckError;
pub use snapshot::{SnapshotLayer, SnapshotLayers, SnapshotLayersError};
pub use store::{LayerImage, LayerStore, LayersError};
