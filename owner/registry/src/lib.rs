//! Images by digest from a registry, an OCI layout or an archive.
//!
//! [`Images`] knows where to look: layout folders and archives first, then the registry that the
//! name says. [`Images::resolve`] gives a [`ResolvedImage`], of which every document was checked
//! against its digest and its size; [`Images::facts`] reads its layers, each checked against blob
//! digest and diff id, and gives what a pod needs to know ([`ah_pod::ImageFacts`]). The layers are
//! converted by whoever calls ([`LayerConverter`]): [`FactsCache`] keeps root hashes only, a host's
//! store keeps the images. A [`LockFile`] holds the facts of images, so that neither registry nor
//! layers are needed.
#![forbid(unsafe_code)]

mod accounts;
mod cache;
mod convert;
mod credentials;
mod error;
mod facts;
mod images;
mod lock;

mod name;
mod remote;
mod view;

pub use ah_oci::Platform;
pub use cache::FactsCache;
pub use convert::{ConvertedLayer, KeptFiles, LayerConverter, LayerFiles, TemporaryFiles};
pub use error::{BoxError, RegistryError};
pub use images::{Images, LayerBlob, Places, ResolvedImage, registry_folders};
pub use lock::{LockError, LockFile, LockedImage};

pub use remote::RemoteError;
