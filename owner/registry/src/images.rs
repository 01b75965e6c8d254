//! Where images are looked for, and an image that was found.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use ah_digest::Sha256;
use ah_oci::oci_spec::image::ImageConfiguration;
use ah_oci::{LayerDescriptor, Layout, LayoutError, Platform, VerifiedReader};
use ah_pod::ImageFacts;
use oci_client::Reference;

use crate::convert::LayerConverter;
use crate::error::RegistryError;
use crate::remote::Remote;
use crate::{facts, name};

/// Where to look for images.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// OCI layout folders and oci-archive files, asked in this order before any registry.
    pub layouts: Vec<PathBuf>,
    /// Registries (`host[:port]`) spoken to in plain HTTP.
    pub plain_http: Vec<String>,
}

/// Looks images up.
#[derive(Clone)]
pub struct Images {
    layouts: Vec<Layout>,
    remote: Remote,
}

/// An image whose documents were all checked; its layers are checked while they are read.
#[derive(Clone)]
pub struct ResolvedImage {
    name: String,
    reference: Reference,
    image: ah_oci::ResolvedImage,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Layout(Arc<Layout>),
    Registry(Remote),
}

/// A layer's blob, checked against digest and size while it is read; reading fails at its end when
/// they differ.
pub type LayerBlob = VerifiedReader<Box<dyn Read + Send>>;

impl Images {
    /// Opens the places.
    ///
    /// # Errors
    /// When a folder or archive is none of a layout.
    pub fn open(places: &Places) -> Result<Self, RegistryError> {
        let open = |path: &PathBuf| {
            let layout = match path.is_dir() {
                true => Layout::open_dir(path),
                false => Layout::open_archive(path),
            };
            layout
                .map_err(|source| RegistryError::Place { path: path.display().to_string(), source })
        };
        Ok(Self {
            layouts: places.layouts.iter().map(open).collect::<Result<_, _>>()?,
            remote: Remote::new(&places.plain_http),
        })
    }

    /// Names of the images in the layouts.
    pub fn names(&self) -> Vec<String> {
        self.layouts.iter().flat_map(Layout::names).collect()
    }

    /// Finds an image for linux/amd64 and reads its documents.
    ///
    /// # Errors
    /// When it is nowhere, or a document is not what its digest names.
    pub async fn resolve(&self, image: &str) -> Result<ResolvedImage, RegistryError> {
        let reference = name::parse(image)?;
        let (found, origin) = match self.in_layouts(image)? {
            Some((found, layout)) => (found, Origin::Layout(Arc::new(layout))),
            None => {
                let found = self.remote.resolve(image, &reference).await?;
                (found, Origin::Registry(self.remote.clone()))
            }
        };
        Ok(ResolvedImage { name: image.into(), reference, image: found, origin })
    }

    fn in_layouts(
        &self,
        image: &str,
    ) -> Result<Option<(ah_oci::ResolvedImage, Layout)>, RegistryError> {
        for layout in &self.layouts {
            match layout.resolve(image, Platform::LinuxAmd64) {
                Ok(found) => return Ok(Some((found, layout.clone()))),
                Err(LayoutError::NotFound { .. }) => {}
                Err(source) => return Err(RegistryError::Layout { name: image.into(), source }),
            }
        }
        Ok(None)
    }

    /// Reads the layers of an image and gives what a pod needs to know of it.
    ///
    /// # Errors
    /// When a layer differs from its digest or diff id or cannot be converted.
    pub async fn facts(
        &self,
        image: &ResolvedImage,
        converter: Arc<dyn LayerConverter>,
    ) -> Result<ImageFacts, RegistryError> {
        let image = image.clone();
        // the layers are read with blocking calls, which an asynchronous thread must not make
        tokio::task::spawn_blocking(move || facts::facts(&image, &*converter))
            .await
            .map_err(|_| RegistryError::Cancelled)?
    }
}

impl ResolvedImage {
    /// The name as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `registry/repository@sha256:…`, as containerd names it in its requests.
    pub fn canonical_name(&self) -> String {
        name::canonical(&self.reference, &self.image.target_digest)
    }

    /// The name to write into a manifest: as written, with the digest.
    pub fn pinned_name(&self) -> String {
        name::pinned(&self.name, &self.image.target_digest)
    }

    /// What the name stood for: an index or a manifest.
    pub fn target_digest(&self) -> Sha256 {
        self.image.target_digest
    }

    /// The manifest for linux/amd64.
    pub fn manifest_digest(&self) -> Sha256 {
        self.image.manifest_digest
    }

    /// The image config.
    pub fn config(&self) -> &ImageConfiguration {
        &self.image.config
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> &[LayerDescriptor] {
        &self.image.layers
    }

    /// Opens a layer's blob. Blocks, so it must not be called on an asynchronous thread.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open_layer(&self, layer: &LayerDescriptor) -> io::Result<LayerBlob> {
        match &self.origin {
            Origin::Layout(layout) => layout.open_blob(layer.digest, layer.size_bytes),
            Origin::Registry(remote) => remote.open_blob(&self.name, &self.reference, layer),
        }
    }
}
