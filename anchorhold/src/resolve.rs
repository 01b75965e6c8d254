//! Images of all pods of a command: each resolved once, each layer converted once, several at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ah_digest::Sha256;
use ah_layers::LayerStore;
use ah_oci::LayerDescriptor;
use ah_pod::ImageFacts;
use ah_registry::{BoxError, ConvertedLayer, Images, LayerConverter, Places, RegistryError};
use anyhow::Result;
use futures_util::{StreamExt as _, stream};

use crate::cli;
use crate::dirs::Dirs;
use crate::ui::{Progress, failure};

/// Most images fetched at the same time; their layers are converted on all cores anyway.
const IMAGES_AT_ONCE: usize = 4;

/// What is known of the images.
pub(crate) struct Resolved {
    /// Image as written to what a pod needs to know of it.
    pub(crate) facts: BTreeMap<String, ImageFacts>,
    /// Image as written to the name with its digest.
    pub(crate) pinned: BTreeMap<String, String>,
    /// A block image for each layer, each root hash once.
    pub(crate) layers: Vec<ah_sandbox::LayerImage>,
}

/// Opens the places where images are looked for.
pub(crate) fn open(images: &cli::Images) -> Result<Images> {
    let places = Places { layouts: images.images.clone(), plain_http: images.plain_http.clone() };
    Images::open(&places).map_err(registry_error)
}

/// Resolves images by their names as written.
pub(crate) async fn resolve(
    dirs: &Dirs,
    places: &cli::Images,
    names: BTreeSet<String>,
) -> Result<Resolved> {
    let store = Arc::new(Store::open(dirs)?);
    let images = open(places)?;
    let progress = Progress::begin("images", names.len());
    let (mut facts, mut pinned) = (BTreeMap::new(), BTreeMap::new());
    let mut found =
        stream::iter(names).map(|name| one(&images, name, store.clone())).buffered(IMAGES_AT_ONCE);
    while let Some(image) = found.next().await {
        let image = image.map_err(registry_error)?;
        progress.step(&image.name, image.took, summary(&image.facts));
        pinned.insert(image.name.clone(), image.pinned);
        facts.insert(image.name, image.facts);
    }
    drop(found);
    Ok(Resolved { facts, pinned, layers: store.layers() })
}

struct Found {
    name: String,
    pinned: String,
    facts: ImageFacts,
    took: Duration,
}

async fn one(images: &Images, name: String, store: Arc<Store>) -> Result<Found, RegistryError> {
    let start = Instant::now();
    let resolved = images.resolve(&name).await?;
    let facts = images.facts(&resolved, store).await?;
    Ok(Found { pinned: resolved.pinned_name(), name, facts, took: start.elapsed() })
}

/// A registry's error with its remedy.
pub(crate) fn registry_error(error: RegistryError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => failure(&error, hint),
        None => error.into(),
    }
}

fn summary(facts: &ImageFacts) -> String {
    let blocks: u64 = facts.layers.iter().map(|layer| layer.verity.data_blocks).sum();
    let digest =
        facts.reference.rsplit_once('@').map_or(facts.reference.as_str(), |(_, digest)| digest);
    format!("{} layers, {:.1} MB, {digest}", facts.layers.len(), blocks as f64 * 4096e-6)
}

/// The host's layer store as the owner's converter: one cache for both sides of this machine.
struct Store {
    store: LayerStore,
    used: Mutex<BTreeMap<Sha256, ah_sandbox::LayerImage>>,
}

impl Store {
    fn open(dirs: &Dirs) -> Result<Self> {
        Ok(Self { store: LayerStore::open(dirs.layers())?, used: Mutex::default() })
    }

    fn layers(&self) -> Vec<ah_sandbox::LayerImage> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl LayerConverter for Store {
    fn convert(
        &self,
        layer: &LayerDescriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<ConvertedLayer, BoxError> {
        let image = self.store.image_for(&layer.diff_id, layer.media_type, open)?;
        let file = File::open(&image.path)?;
        let used = ah_sandbox::LayerImage { path: image.path, verity: image.info };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(image.info.root_hash, used);
        Ok(ConvertedLayer { verity: image.info, image: file })
    }
}
