//! From a resolved image to what a pod needs to know of it.

use std::io::Read;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ah_erofs::Image;
use ah_oci::LayerDescriptor;
use ah_pod::{ImageFacts, Layer};

use crate::accounts;
use crate::convert::{ConvertedLayer, LayerConverter};
use crate::error::{BoxError, RegistryError};
use crate::images::ResolvedImage;

/// Most layers converted at the same time.
const MAX_WORKERS: usize = 8;

pub(crate) fn facts(
    image: &ResolvedImage,
    converter: &dyn LayerConverter,
) -> Result<ImageFacts, RegistryError> {
    let converted = convert_all(image, converter)?;
    let layers = image.layers().iter().zip(&converted);
    let layers = layers
        .map(|(layer, converted)| Layer { diff_id: layer.diff_id, verity: converted.verity })
        .collect();
    let not_read = |source: BoxError| RegistryError::Accounts { name: image.name().into(), source };
    let images = converted.into_iter().map(|converted| Image::open(converted.image));
    let images: Vec<_> =
        images.collect::<Result<_, _>>().map_err(|error| not_read(error.into()))?;
    let accounts = accounts::read(&images).map_err(|error| not_read(error.into()))?;

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
    check(image, &facts)?;
    Ok(facts)
}

/// Texts that would mean something else in a request than in the config.
fn check(image: &ResolvedImage, facts: &ImageFacts) -> Result<(), RegistryError> {
    let wrong = |field, found: &str| {
        Err(RegistryError::Config { name: image.name().into(), field, found: found.into() })
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

/// Several layers at once, each in its place in the result.
fn convert_all(
    image: &ResolvedImage,
    converter: &dyn LayerConverter,
) -> Result<Vec<ConvertedLayer>, RegistryError> {
    let layers = image.layers();
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<ConvertedLayer, RegistryError>>>> =
        layers.iter().map(|_| Mutex::new(None)).collect();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        for _ in 0..cores.min(MAX_WORKERS).min(layers.len()) {
            scope.spawn(|| {
                let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(layer), Some(slot)) = (layers.get(index), results.get(index)) else {
                        return;
                    };
                    let result = convert(image, layer, converter);
                    if let Ok(mut slot) = slot.lock() {
                        *slot = Some(result);
                    }
                }
            });
        }
    });
    results
        .into_iter()
        .map(|slot| slot.into_inner().ok().flatten().unwrap_or(Err(RegistryError::Cancelled)))
        .collect()
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
