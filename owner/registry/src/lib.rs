//! Images by digest from a registry, an OCI layout or an archive.
//!
//! [`Images`] knows where to look: layout folders and archives first, then the registry that the
//! name says. [`Images::resolve`] gives a [`ResolvedImage`], of which every document was checked
//! against its digest and its size; [`Images::facts`] reads its layers, each checked against blob
//! digest and diff id, and gives what a pod needs to know ([`ah_pod::ImageFacts`]). The layers are
//! converted by whoever calls ([`LayerConverter`]), so that a cache can be shared.
#![forbid(unsafe_code)]

mod accounts;
mod convert;
mod credentials;
mod error;
mod facts;
mod images;
mod name;
mod remote;

pub use convert::{ConvertedLayer, LayerConverter, TemporaryFiles};
pub use error::{BoxError, RegistryError};
pub use images::{Images, LayerBlob, Places, ResolvedImage};
pub use oci_client::Reference;
