use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ah_digest::Sha256;
use ah_layers::{LayerImage, LayerStore, LayersError, SnapshotLayer};
use ah_metrics::Metrics;
use ah_oci::LayerMediaType;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::catalog::{Catalog, CatalogError, Layer};
use crate::name::Name;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Converts the layers of committed snapshots, each once, a few at a time.
#[derive(Clone)]
pub(crate) struct Converter(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    layers: LayerStore,
    catalog: Catalog,
    jobs: Mutex<HashMap<String, Job>>,
    permits: Semaphore,
    /// Read by whoever converts or hands out an image, written by whoever deletes images.
    images: RwLock<()>,
    metrics: Arc<Metrics>,
}

enum Job {
    Running(watch::Receiver<Option<SnapshotLayer>>),
    /// The layer's bytes are refused, and would be again.
    Refused(String),
}

/// Why a snapshot has no block image.
#[derive(Debug, thiserror::Error)]
enum ConvertError {
    #[error("its snapshot {0:?} is no layer of an image: the snapshot's key is no chain id")]
    NoLayer(String),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    MediaType(#[from] ah_oci::UnsupportedMediaType),
    #[error(transparent)]
    Layers(#[from] LayersError),
    #[error("its conversion ended without a result")]
    Panicked,
}

impl Converter {
    pub(crate) fn new(
        store: Arc<Store>,
        layers: LayerStore,
        catalog: Catalog,
        conversions: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            layers,
            catalog,
            jobs: Mutex::default(),
            permits: Semaphore::new(conversions.max(1)),
            images: RwLock::default(),
            metrics,
        }))
    }

    /// Begins the conversion of a committed snapshot, unless it is converted.
    pub(crate) fn begin(&self, snapshot: &Snapshot) {
        if self.0.at_hand(snapshot).is_none() {
            self.job(&snapshot.name);
        }
    }

    /// The layers that these snapshots are, in their order, once each is converted or has failed.
    pub(crate) async fn layers(&self, snapshots: &[Snapshot]) -> Vec<SnapshotLayer> {
        // All are begun before the first is waited for.
        let begun: Vec<_> = snapshots
            .iter()
            .map(|snapshot| match self.0.at_hand(snapshot) {
                Some(layer) => Ok(layer),
                None => Err(self.job(&snapshot.name)),
            })
            .collect();
        let mut layers = Vec::with_capacity(begun.len());
        for begun in begun {
            layers.push(match begun {
                Ok(layer) => Ok(layer),
                Err(Job::Refused(reason)) => Err(reason),
                Err(Job::Running(receiver)) => result(receiver).await,
            });
        }
        layers
    }

    /// Forgets what is known about a snapshot that is removed.
    pub(crate) fn forget(&self, name: &str) {
        if let Entry::Occupied(entry) = self.0.jobs().entry(name.to_owned())
            && matches!(entry.get(), Job::Refused(_))
        {
            entry.remove();
        }
    }

    /// Deletes images that no snapshot needs. When layers are being converted it is left for the next time.
    pub(crate) async fn collect(&self) -> Result<(), LayersError> {
        self.0.catalog.forget().await;
        let inner = Arc::clone(&self.0);
        let collected = spawn_blocking(move || {
            let Ok(_alone) = inner.images.try_write() else { return Ok(()) };
            let needed = inner.store.layers();
            inner.layers.retain(|diff_id| needed.contains(diff_id))
        });
        collected.await.unwrap_or(Ok(()))
    }

    /// Bytes of the image of a layer.
    pub(crate) fn image_bytes(&self, diff_id: &Sha256) -> u64 {
        self.0.layers.cached(diff_id).map_or(0, |image| image.info.image_bytes())
    }

    fn job(&self, name: &str) -> Job {
        let mut jobs = self.0.jobs();
        match jobs.get(name) {
            Some(Job::Running(receiver)) => Job::Running(receiver.clone()),
            Some(Job::Refused(reason)) => Job::Refused(reason.clone()),
            None => {
                let (sender, receiver) = watch::channel(None);
                jobs.insert(name.to_owned(), Job::Running(receiver.clone()));
                let work = run(Arc::clone(&self.0), name.to_owned(), sender);
                // its lines say the trace of the call that began it
                tokio::spawn(work.instrument(tracing::Span::current()));
                Job::Running(receiver)
            }
        }
    }
}

impl Inner {
    /// The layer that a snapshot was converted to, if its image is there and whole.
    fn at_hand(&self, snapshot: &Snapshot) -> Option<(Sha256, LayerImage)> {
        let diff_id = snapshot.layer?;
        Some((diff_id, self.layers.cached(&diff_id)?))
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn convert(self: &Arc<Self>, name: &str) -> Result<(Sha256, LayerImage), ConvertError> {
        let no_layer = || ConvertError::NoLayer(name.to_owned());
        let parsed = Name::parse(name).ok_or_else(no_layer)?;
        let chain = parsed.chain_id().ok_or_else(no_layer)?;
        let layer = self.catalog.layer(parsed.namespace, chain).await?;
        let (diff_id, media_type) = (layer.diff_id, layer.media_type.clone()?);
        let image = match self.layers.cached(&diff_id) {
            Some(image) => image,
            None => self.image(parsed.namespace, &layer, media_type).await?,
        };
        let (inner, name) = (Arc::clone(self), name.to_owned());
        let noted = spawn_blocking(move || inner.store.set_layer(&name, diff_id)).await;
        if let Ok(Err(error)) = noted {
            // Nothing is lost: the image is found again by its diff id.
            tracing::warn!(%error, layer = %diff_id, "converted layer not written down");
        }
        Ok((diff_id, image))
    }

    async fn image(
        self: &Arc<Self>,
        namespace: &str,
        layer: &Layer,
        media_type: LayerMediaType,
    ) -> Result<LayerImage, ConvertError> {
        let blob = self.catalog.blob(namespace, layer).await?;
        let (inner, diff_id) = (Arc::clone(self), layer.diff_id);
        let open = move || Ok(Box::new(blob) as Box<dyn std::io::Read + Send>);
        let made = spawn_blocking(move || inner.layers.image_for(&diff_id, media_type, open));
        let made = made.await.map_err(|_| ConvertError::Panicked)?;
        if let Err(error) = &made
            && is_refusal(error)
        {
            // Is it the layer, or are these not its bytes?
            self.catalog.check(namespace, layer).await?;
        }
        Ok(made?)
    }
}

async fn run(inner: Arc<Inner>, name: String, sender: watch::Sender<Option<SnapshotLayer>>) {
    let begun = std::time::Instant::now();
    let result = {
        let _permit = inner.permits.acquire().await;
        let _image = inner.images.read().await;
        inner.convert(&name).await
    };
    inner.metrics.converted(result.is_ok(), begun.elapsed());
    let job = match &result {
        Ok((diff_id, image)) => {
            let seconds = begun.elapsed().as_secs_f32();
            tracing::info!(snapshot = name, layer = %diff_id, root_hash = %image.info.root_hash, seconds, "layer converted");
            None
        }
        Err(error) => {
            let reason = whole_text(error);
            tracing::warn!(snapshot = name, reason, "layer not converted");
            is_final(error).then_some(Job::Refused(reason))
        }
    };
    {
        let mut jobs = inner.jobs();
        jobs.remove(&name);
        if let Some(refused) = job {
            jobs.insert(name, refused);
        }
    }
    let _ = sender.send(Some(result.map_err(|error| whole_text(&error))));
}

async fn result(mut receiver: watch::Receiver<Option<SnapshotLayer>>) -> SnapshotLayer {
    match receiver.wait_for(Option::is_some).await.map(|result| result.clone()) {
        Ok(Some(result)) => result,
        _ => Err(ConvertError::Panicked.to_string()),
    }
}

/// Whether another attempt would end the same way: the layer's contents are refused, and no reading or writing failed.
fn is_final(error: &ConvertError) -> bool {
    match error {
        ConvertError::NoLayer(_) | ConvertError::MediaType(_) => true,
        ConvertError::Layers(error) => is_refusal(error),
        ConvertError::Catalog(_) | ConvertError::Panicked => false,
    }
}

fn is_refusal(error: &LayersError) -> bool {
    let reading_failed = || causes(error).any(|cause| cause.is::<std::io::Error>());
    matches!(error, LayersError::Convert { .. }) && !reading_failed()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// An error with its causes.
pub(crate) fn whole_text(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
