//! OCI images: layouts, archives, manifests, configs, and the strict reading of a layer tar into a file tree.
//!
//! Everything read here comes from a registry or a folder that somebody else filled. Documents are checked against
//! their digest and size before they are parsed, every length has a named maximum, and what is not understood is
//! refused by name.
#![forbid(unsafe_code)]

mod layer;
mod layout;
mod media;
mod path;
mod resolve;
pub mod tar;
mod verified;

pub use layer::{
    Attributes, ContentSink, FileTree, LayerError, MAX_METADATA_BYTES, NodeKind, Shape, TreeNode,
    read_layer,
};
pub use layout::{Layout, LayoutError};
pub use media::{LayerMediaType, MAX_ZSTD_WINDOW_LOG, UnsupportedMediaType};
pub use oci_spec;
pub use path::PathError;
pub use resolve::{
    ImageError, LayerDescriptor, MAX_DOCUMENT_BYTES, MAX_LAYERS, Platform, ResolvedImage,
    parse_config, parse_index, parse_manifest, select_manifest,
};
pub use verified::{VerifiedReader, read_document};
