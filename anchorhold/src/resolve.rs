//! Images of all pods of a command: each resolved once, each layer converted once, several at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ah_digest::Sha256;
use ah_layers::LayerStore;
use ah_oci::LayerDescriptor;
use ah_pod::ImageFacts;
use ah_registry::{
    BoxError, ConvertedLayer, Images, LayerConverter, LayerFiles, LockError, LockFile, Places,
    Platform, RegistryError, ResolvedImage, TemporaryFiles,
};
use anyhow::Result;

use crate::cli;
use crate::dirs::Dirs;
use crate::ui::{Progress, failure};

/// What is known of the images.
pub(crate) struct Resolved {
    /// Image as written to what a pod needs to know of it.
    pub(crate) facts: BTreeMap<String, ImageFacts>,
    /// Image as written to the name with its digest.
    pub(crate) pinned: BTreeMap<String, String>,
    /// A block image for each layer, each root hash once; none where only facts were asked for.
    pub(crate) layers: Vec<ah_sandbox::LayerImage>,
}

/// What the images are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A policy: root hashes and accounts. No image is written, and a lock file is enough.
    Facts,
    /// A run: the layers' block images, too.
    Layers,
}

/// [`resolve`] for facts, for each of the platforms. An image's name stands for one digest on all of them.
pub(crate) async fn resolve_for_all(
    dirs: &Dirs,
    places: &cli::Images,
    names: &BTreeSet<String>,
) -> Result<Vec<(Platform, Resolved)>> {
    let mut all: Vec<(Platform, Resolved)> = Vec::new();
    for platform in places.platform.iter().copied() {
        if all.iter().any(|(known, _)| *known == platform) {
            continue;
        }
        let found = resolve(dirs, &places.on(platform), names.clone(), Need::Facts).await?;
        if let Some((first, other)) = all.first() {
            let differs =
                found.pinned.iter().find(|(name, pinned)| other.pinned.get(*name) != Some(pinned));
            if let Some((name, _)) = differs {
                return Err(failure(
                    format!("image {name} is another one for {first} than for {platform}"),
                    "one policy for several platforms needs an image index, whose digest stands for all of them",
                ));
            }
        }
        all.push((platform, found));
    }
    Ok(all)
}

/// Resolves images by their names as written.
pub(crate) async fn resolve(
    dirs: &Dirs,
    places: &cli::Images,
    names: BTreeSet<String>,
    need: Need,
) -> Result<Resolved> {
    let start = Instant::now();
    let mut lock = match &places.lock {
        Some(path) => LockFile::read(path).map_err(lock_error)?.unwrap_or_default(),
        None => LockFile::default(),
    };
    let mut found =
        Resolved { facts: BTreeMap::new(), pinned: BTreeMap::new(), layers: Vec::new() };
    let mut wanted = BTreeMap::new();
    let progress = Progress::begin("images", names.len());
    for name in names {
        match lock.image(&name, places.first_platform()) {
            Ok(locked) if need == Need::Facts => {
                progress.step(&name, start.elapsed(), summary(&locked.facts));
                found.pinned.insert(name.clone(), locked.pinned_name(&name));
                found.facts.insert(name, locked.facts.clone());
            }
            // the layers of a locked image are those of its digest, whatever its tag is now
            Ok(locked) => drop(wanted.insert(name.clone(), locked.pinned_name(&name))),
            Err(LockError::Missing { .. }) => drop(wanted.insert(name.clone(), name)),
            Err(error) => return Err(lock_error(error)),
        }
    }
    if wanted.is_empty() {
        return Ok(found);
    }
    let images = open(dirs, places).await?;
    let asked: Vec<String> = wanted.values().cloned().collect();
    let resolved = images.resolve_all(&asked).await.map_err(registry_error)?;
    let (facts, layers) = read(dirs, &images, &resolved, need).await?;
    found.layers = layers;
    let mut changed = false;
    for ((name, image), facts) in wanted.into_keys().zip(resolved).zip(facts) {
        progress.step(&name, start.elapsed(), summary(&facts));
        let image = image.named(&name);
        match lock.image(&name, image.platform()) {
            Ok(_) => lock.check(&image, &facts).map_err(lock_error)?,
            Err(_) => {
                lock.add(&image, &facts).map_err(lock_error)?;
                changed = true;
            }
        }
        found.pinned.insert(name.clone(), image.pinned_name());
        found.facts.insert(name, facts);
    }
    match &places.lock {
        Some(path) if changed => lock.write(path).map_err(lock_error)?,
        _ => {}
    }
    Ok(found)
}

async fn read(
    dirs: &Dirs,
    images: &Images,
    resolved: &[ResolvedImage],
    need: Need,
) -> Result<(Vec<ImageFacts>, Vec<ah_sandbox::LayerImage>)> {
    match need {
        Need::Layers => {
            let store = Arc::new(Store::open(dirs)?);
            let facts = images.facts_all(resolved, store.clone()).await.map_err(registry_error)?;
            Ok((facts, store.layers()))
        }
        Need::Facts => {
            let converter: Arc<dyn LayerConverter> = match images.cache() {
                Some(cache) => Arc::new(cache.clone()),
                None => Arc::new(TemporaryFiles),
            };
            let facts = images.facts_all(resolved, converter).await.map_err(registry_error)?;
            Ok((facts, Vec::new()))
        }
    }
}

/// Opens the places where images are looked for.
pub(crate) async fn open(dirs: &Dirs, images: &cli::Images) -> Result<Images> {
    let places = Places {
        layouts: images.images.clone(),
        stores: crate::containerd::stores(images).await?,
        plain_http: images.plain_http.clone(),
        auth_file: None,
        ca: images.ca.clone(),
        registry_folders: ah_registry::registry_folders(),
        cache: Some(dirs.facts()),
        offline: images.offline,
        platform: images.first_platform(),
    };
    Images::open(&places).map_err(registry_error)
}

/// A registry's error with its remedy.
pub(crate) fn registry_error(error: RegistryError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => anyhow::Error::new(crate::ui::Hint(hint)).context(causes(&error)),
        None => error.into(),
    }
}

/// An error with what is behind it on one line, for a text that must go before its remedy.
fn causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", causes(source)),
        None => error.to_string(),
    }
}

fn lock_error(error: LockError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => failure(causes(&error), hint),
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
        Ok(ConvertedLayer { verity: image.info, files: LayerFiles::Image(file) })
    }
}
