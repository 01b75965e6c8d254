//! From resolved images to what a pod needs to know of them.

use std::collections::HashMap;
use std::io::Read;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ah_digest::Sha256;
use ah_oci::LayerDescriptor;
use ah_pod::{Accounts, ImageFacts, Layer};

use crate::accounts::{self, AccountsError};
use crate::cache::FactsCache;
use crate::convert::{ConvertedLayer, LayerConverter, LayerFiles, TemporaryFiles};
use crate::error::{BoxError, RegistryError};
use crate::images::ResolvedImage;
use crate::view::View;

/// Most layers converted at the same time.
const MAX_WORKERS: usize = 8;

/// The facts of several images, in their order. A layer that several images have is converted once.
pub(crate) fn facts(
    images: &[ResolvedImage],
    converter: &dyn LayerConverter,
    cache: Option<&FactsCache>,
) -> Result<Vec<ImageFacts>, RegistryError> {
    let converted = convert_all(images, converter)?;
    images.iter().map(|image| facts_of(image, &converted, cache)).collect()
}

/// Converted layers by diff id.
type Converted = HashMap<Sha256, ConvertedLayer>;

fn facts_of(
    image: &ResolvedImage,
    converted: &Converted,
    cache: Option<&FactsCache>,
) -> Result<ImageFacts, RegistryError> {
    let mut layers = Vec::new();
    for layer in image.layers() {
        let found = converted.get(&layer.diff_id).ok_or(RegistryError::Cancelled)?;
        layers.push(Layer { diff_id: layer.diff_id, verity: found.verity });
    }
    let accounts = accounts_of(image, converted, cache)?;
    let config = image.config().config().clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut volumes = list(config.volumes());
    volumes.sort_unstable();
    let facts = ImageFacts {
        reference: image.canonical_name(),
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        volumes,
        stop_signal: config.stop_signal().clone(),
        accounts,
        layers,
    };
    check(image.name(), &facts)?;
    Ok(facts)
}

/// The accounts, from what was kept of the layers; where links lead to other files, from whole images, which are made
/// for it and known afterwards.
fn accounts_of(
    image: &ResolvedImage,
    converted: &Converted,
    cache: Option<&FactsCache>,
) -> Result<Accounts, RegistryError> {
    let not_read = |source: BoxError| RegistryError::Accounts { name: image.name().into(), source };
    match accounts::read(&views(image, converted)?) {
        Err(AccountsError::NotKept) => {}
        found => return found.map_err(|error| not_read(error.into())),
    }
    if let Some(known) = cache.and_then(|cache| cache.accounts(image.layers())) {
        return Ok(known);
    }
    let whole = convert_all(std::slice::from_ref(image), &TemporaryFiles)?;
    let accounts =
        accounts::read(&views(image, &whole)?).map_err(|error| not_read(error.into()))?;
    if let Some(cache) = cache {
        cache.keep_accounts(image.layers(), &accounts).map_err(|source| not_read(source.into()))?;
    }
    Ok(accounts)
}

fn views(image: &ResolvedImage, converted: &Converted) -> Result<Vec<View>, RegistryError> {
    let not_read = |source: BoxError| RegistryError::Accounts { name: image.name().into(), source };
    let view = |layer: &LayerDescriptor| {
        let found = converted.get(&layer.diff_id).ok_or(RegistryError::Cancelled)?;
        let files = match &found.files {
            LayerFiles::Image(file) => {
                LayerFiles::Image(file.try_clone().map_err(|error| not_read(error.into()))?)
            }
            LayerFiles::Kept(kept) => LayerFiles::Kept(kept.clone()),
        };
        View::open(files).map_err(|error| not_read(error.into()))
    };
    image.layers().iter().map(view).collect()
}

/// Texts that would mean something else in a request than in the config.
pub(crate) fn check(name: &str, facts: &ImageFacts) -> Result<(), RegistryError> {
    let wrong = |field, found: &str| {
        Err(RegistryError::Config { name: name.into(), field, found: found.into() })
    };
    let texts = [("Entrypoint", &facts.entrypoint), ("Cmd", &facts.cmd), ("Env", &facts.env)];
    for (field, texts) in texts {
        if let Some(text) = texts.iter().find(|text| text.contains('\0')) {
            return wrong(field, text);
        }
    }
    let plain = |path: &String| {
        path.len() > 1 && path.starts_with('/') && path.split('/').all(|part| part != "..")
    };
    if let Some(path) = facts.volumes.iter().find(|path| !plain(path)) {
        return wrong("Volumes", path);
    }
    match facts.working_dir.as_str() {
        "" => Ok(()),
        dir if dir.starts_with('/') && !dir.contains('\0') => Ok(()),
        dir => wrong("WorkingDir", dir),
    }
}

/// Several layers at once, of all images, each once; the largest first, so that none is left for the end alone.
fn convert_all(
    images: &[ResolvedImage],
    converter: &dyn LayerConverter,
) -> Result<Converted, RegistryError> {
    let mut jobs: Vec<(&ResolvedImage, &LayerDescriptor)> =
        images.iter().flat_map(|image| image.layers().iter().map(move |l| (image, l))).collect();
    jobs.sort_by_key(|(_, layer)| (std::cmp::Reverse(layer.size_bytes), *layer.diff_id.as_bytes()));
    jobs.dedup_by_key(|(_, layer)| (layer.size_bytes, layer.diff_id, layer.digest));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Ok(Converted::new()));
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    // One more than cores where layers of one size would leave cores idle while the last of them are read.
    let workers = cores + usize::from(!jobs.len().is_multiple_of(cores));
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        for _ in 0..workers.min(MAX_WORKERS).min(jobs.len()) {
            scope.spawn(|| {
                let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
                while let Some((image, layer)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = convert(image, layer, converter);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *done, result) {
                        (Ok(converted), Ok(one)) => drop(converted.insert(layer.diff_id, one)),
                        // the first failure ends the others' work
                        (Ok(_), Err(error)) => {
                            *done = Err(error);
                            next.store(jobs.len(), Ordering::Relaxed);
                        }
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn convert(
    image: &ResolvedImage,
    layer: &LayerDescriptor,
    converter: &dyn LayerConverter,
) -> Result<ConvertedLayer, RegistryError> {
    let mut open = || {
        let blob = image.open_layer(layer)?;
        Ok(Box::new(blob) as Box<dyn Read + Send>)
    };
    converter.convert(layer, &mut open).map_err(|source| RegistryError::Layer {
        name: image.name().into(),
        diff_id: layer.diff_id,
        source,
    })
}
