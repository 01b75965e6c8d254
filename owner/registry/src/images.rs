//! Where images are looked for, and an image that was found.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use ah_digest::Sha256;
use ah_oci::oci_spec::image::ImageConfiguration;
use ah_oci::{LayerDescriptor, Layout, LayoutError, Platform, VerifiedReader};
use ah_pod::ImageFacts;

use crate::cache::FactsCache;
use crate::convert::LayerConverter;
use crate::error::RegistryError;
use crate::name::Reference;
use crate::remote::Remote;
use crate::{facts, name};

/// Images resolved at the same time.
const MAX_RESOLVED: usize = 16;

/// Where to look for images.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// OCI layout folders and oci-archive files, asked in this order before any registry.
    pub layouts: Vec<PathBuf>,
    /// Content stores of containerd with the names that it has for their images, asked after the layouts.
    pub stores: Vec<(PathBuf, Vec<(String, Sha256)>)>,
    /// Registries (`host[:port]`) spoken to in plain HTTP.
    pub plain_http: Vec<String>,
    /// A file in the form of docker's config.json or podman's auth.json, read instead of the user's.
    pub auth_file: Option<PathBuf>,
    /// Certificate files (PEM) that are believed of every registry, besides the system's.
    pub ca: Vec<PathBuf>,
    /// Folders with a folder for each registry, for its certificates and mirrors: see [`registry_folders`].
    pub registry_folders: Vec<PathBuf>,
    /// Where documents are kept; without it none are.
    pub cache: Option<PathBuf>,
    /// Whether no registry is asked: what is not in a layout or the cache is refused.
    pub offline: bool,
    /// What the images must be made for.
    pub platform: Platform,
}

/// The folders that docker, podman and containerd have for their registries, and the user's own.
pub fn registry_folders() -> Vec<PathBuf> {
    let system = ["/etc/docker/certs.d", "/etc/containers/certs.d", "/etc/containerd/certs.d"];
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = [".config/containers/certs.d", ".config/docker/certs.d"];
    let own = home.iter().flat_map(|home| own.iter().map(|folder| home.join(folder)));
    system.into_iter().map(PathBuf::from).chain(own).collect()
}

/// Looks images up.
#[derive(Clone)]
pub struct Images {
    layouts: Vec<Layout>,
    remote: Remote,
    cache: Option<FactsCache>,
    platform: Platform,
}

/// An image whose documents were all checked; its layers are checked while they are read.
#[derive(Clone)]
pub struct ResolvedImage {
    name: String,
    reference: Reference,
    image: ah_oci::ResolvedImage,
    origin: Origin,
    platform: Platform,
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
        let cache = places.cache.as_deref().map(FactsCache::open).transpose()?;
        let named = |(path, names): &(PathBuf, Vec<_>)| Ok(open(path)?.named(names.clone()));
        let layouts = places.layouts.iter().map(open);
        Ok(Self {
            layouts: layouts.chain(places.stores.iter().map(named)).collect::<Result<_, _>>()?,
            remote: Remote::new(places, cache.clone()),
            cache,
            platform: places.platform,
        })
    }

    /// Names of the images in the layouts.
    pub fn names(&self) -> Vec<String> {
        self.layouts.iter().flat_map(Layout::names).collect()
    }

    /// The cache of facts, if a place for it was given: a converter that keeps no images.
    pub fn cache(&self) -> Option<&FactsCache> {
        self.cache.as_ref()
    }

    /// Finds an image for the platform and reads its documents.
    ///
    /// # Errors
    /// When it is nowhere, or a document is not what its digest names.
    pub async fn resolve(&self, image: &str) -> Result<ResolvedImage, RegistryError> {
        let reference = name::parse(image)?;
        let (found, origin) = match self.in_layouts(image)? {
            Some((found, layout)) => (found, Origin::Layout(Arc::new(layout))),
            None => {
                let asked = self.as_stores_name_it(image, &reference);
                let found = self.remote.resolve(image, &asked, self.platform).await?;
                (found, Origin::Registry(self.remote.clone()))
            }
        };
        let platform = self.platform;
        Ok(ResolvedImage { name: image.into(), reference, image: found, origin, platform })
    }

    /// What a content store has under a name, and has not whole, is asked for by its digest: the name may be another image by now.
    fn as_stores_name_it(&self, image: &str, reference: &Reference) -> Reference {
        let named = self.layouts.iter().find_map(|layout| layout.digest_named(image));
        match named.filter(|_| reference.digest().is_none()) {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        }
    }

    fn in_layouts(
        &self,
        image: &str,
    ) -> Result<Option<(ah_oci::ResolvedImage, Layout)>, RegistryError> {
        for layout in &self.layouts {
            match layout.resolve(image, self.platform) {
                Ok(found) => return Ok(Some((found, layout.clone()))),
                Err(LayoutError::NotFound { .. }) => {}
                Err(source) => return Err(RegistryError::Layout { name: image.into(), source }),
            }
        }
        Ok(None)
    }

    /// [`Images::resolve`] for several images at once; the results are in their order.
    ///
    /// # Errors
    /// The first image's that fails, in their order.
    pub async fn resolve_all(&self, names: &[String]) -> Result<Vec<ResolvedImage>, RegistryError> {
        let mut resolved = Vec::with_capacity(names.len());
        for names in names.chunks(MAX_RESOLVED) {
            let tasks = names.iter().map(|name| {
                let (images, name) = (self.clone(), name.clone());
                tokio::spawn(async move { images.resolve(&name).await })
            });
            for task in tasks.collect::<Vec<_>>() {
                resolved.push(task.await.map_err(|_| RegistryError::Cancelled)??);
            }
        }
        Ok(resolved)
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
        let facts = self.facts_all(std::slice::from_ref(image), converter).await?;
        facts.into_iter().next().ok_or(RegistryError::Cancelled)
    }

    /// [`Images::facts`] for several images at once, in their order: as many layers at a time as there are cores, and
    /// none of them twice.
    ///
    /// # Errors
    /// The first failure; the rest is given up.
    pub async fn facts_all(
        &self,
        images: &[ResolvedImage],
        converter: Arc<dyn LayerConverter>,
    ) -> Result<Vec<ImageFacts>, RegistryError> {
        let (images, cache) = (images.to_vec(), self.cache.clone());
        // the layers are read with blocking calls, which an asynchronous thread must not make
        tokio::task::spawn_blocking(move || facts::facts(&images, &*converter, cache.as_ref()))
            .await
            .map_err(|_| RegistryError::Cancelled)?
    }
}

impl ResolvedImage {
    /// The same image under the name that its manifest has, when it was asked for by another one of it.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

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

    /// What it is made for.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The manifest for the platform.
    pub fn manifest_digest(&self) -> Sha256 {
        self.image.manifest_digest
    }

    /// Digest of the image config.
    pub fn config_digest(&self) -> Sha256 {
        self.image.config_digest
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
