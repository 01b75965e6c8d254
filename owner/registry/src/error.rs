//! Why an image is not at hand.

use std::io;

use ah_digest::Sha256;
use ah_oci::{ImageError, LayoutError};

use crate::remote::RemoteError;

/// Any error, as [`crate::LayerConverter`] gives it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an image is not resolved or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Not the name of an image.
    #[error("image name {name:?} is not valid: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The parser's words.
        reason: String,
    },
    /// A layout folder or archive is not readable.
    #[error("image source {path:?} is not readable")]
    Place {
        /// Folder or file.
        path: String,
        /// The reason.
        source: LayoutError,
    },
    /// An image in a layout folder or archive is broken.
    #[error("image {name:?} is not readable from its layout")]
    Layout {
        /// The image.
        name: String,
        /// The reason.
        source: LayoutError,
    },
    /// The registry did not give what was asked for.
    #[error("image {name:?} was not had from registry {registry:?}")]
    Registry {
        /// The image.
        name: String,
        /// The registry.
        registry: String,
        /// The client's reason.
        source: Box<RemoteError>,
    },
    /// The registry gave other bytes than the digest names.
    #[error("registry gave another document: found digest {found}, expected {expected}")]
    Digest {
        /// SHA-256 of what was given.
        found: Sha256,
        /// SHA-256 asked for.
        expected: Sha256,
    },
    /// A document from the registry has another length or digest than its descriptor.
    #[error("document of image {name:?} was not read")]
    Document {
        /// The image.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// A document is not an image's.
    #[error("image {name:?} is not acceptable")]
    Image {
        /// The image.
        name: String,
        /// The reason.
        source: ImageError,
    },
    /// The cache's folder or a file in it.
    #[error("cache file {path:?} is not accessible")]
    Cache {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The network would be needed and must not be used.
    #[error("image {name:?} is not at hand and the network must not be used")]
    Offline {
        /// The image.
        name: String,
    },
    /// A layer could not be converted.
    #[error("layer {diff_id} of image {name:?} was not converted")]
    Layer {
        /// The image.
        name: String,
        /// The layer.
        diff_id: Sha256,
        /// The converter's reason.
        source: BoxError,
    },
    /// `/etc/passwd` or `/etc/group` of the merged layers could not be read.
    #[error("account files of image {name:?} were not read")]
    Accounts {
        /// The image.
        name: String,
        /// The reason.
        source: BoxError,
    },
    /// The image config says something that is not acceptable.
    #[error("config of image {name:?} has a {field} that is not acceptable: {found:?}")]
    Config {
        /// The image.
        name: String,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// The work was given up because the program ends.
    #[error("work was given up")]
    Cancelled,
}

impl RegistryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { registry, source, .. } => Some(source.hint(registry)),
            Self::Image { source, .. } => source.hint(),
            Self::Layout { source, .. } | Self::Place { source, .. } => source.hint(),
            Self::Cache { .. } => Some("name another folder with --cache".into()),
            Self::Offline { .. } => Some(
                "give the image in a layout folder with --images, name it by a digest that was read before, or use a \
                 lock file that has it with --lock"
                    .into(),
            ),
            _ => None,
        }
    }
}
