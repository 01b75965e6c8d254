use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ah_containerd_api::content::{
    InfoRequest, ListContentRequest, ReadContentRequest, ReadContentResponse,
};
use ah_containerd_api::{Client, Code, Responses, Status};
use ah_digest::Sha256;
use ah_oci::{LayerMediaType, UnsupportedMediaType, VerifiedReader};
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::name::chain_ids;

/// Longest manifest or config, bytes: containerd's own limit for what it reads whole.
const MAX_DOCUMENT_BYTES: usize = 8 << 20;
/// Most layers of an image.
const MAX_LAYERS: usize = 1000;
/// How long containerd may take for its next message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// What every manifest in containerd's content store has that an image refers to (containerd, `images.ChildGCLabels`).
const MANIFESTS: &str = r#"labels."containerd.io/gc.ref.content.config""#;

/// Finds the blobs of layers in containerd's content store.
pub(crate) struct Catalog {
    client: Client,
    /// The layers of each manifest that was read, by chain id. What a digest names does not change.
    manifests: Mutex<HashMap<String, Arc<HashMap<Sha256, Layer>>>>,
}

/// A layer: its blob and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) diff_id: Sha256,
    pub(crate) media_type: Result<LayerMediaType, UnsupportedMediaType>,
    digest: String,
}

/// Why a layer's blob is not at hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error("containerd's content store not read: {what}: {status}")]
    Containerd { what: String, status: Status },
    #[error(
        "no image in namespace {namespace:?} of containerd has the layer with chain id {chain}"
    )]
    Unknown { namespace: String, chain: Sha256 },
    #[error(
        "blob {digest} is not in containerd's content store: it is fetched again when the image is pulled after it was \
         removed, and kept when discard_unpacked_layers is false"
    )]
    Gone { digest: String },
    #[error("blob {digest} in containerd's content store is damaged")]
    Damaged { digest: String, source: io::Error },
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    media_type: String,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Catalog {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, manifests: Mutex::default() }
    }

    /// The layer with a chain id, of any image in the namespace.
    pub(crate) async fn layer(
        &self,
        namespace: &str,
        chain: Sha256,
    ) -> Result<Layer, CatalogError> {
        let client = self.client.in_namespace(namespace);
        let mut manifests = self.manifests.lock().await;
        for digest in list(&client).await? {
            let layers = match manifests.get(&digest) {
                Some(layers) => Arc::clone(layers),
                None => match read_image(&client, &digest).await? {
                    Some(layers) => {
                        let layers = Arc::new(layers);
                        manifests.insert(digest, Arc::clone(&layers));
                        layers
                    }
                    None => continue,
                },
            };
            if let Some(layer) = layers.get(&chain) {
                return Ok(layer.clone());
            }
        }
        Err(CatalogError::Unknown { namespace: namespace.to_owned(), chain })
    }

    /// A reader of the layer's blob, for a thread that may wait.
    pub(crate) async fn blob(&self, namespace: &str, layer: &Layer) -> Result<Blob, CatalogError> {
        let client = self.client.in_namespace(namespace);
        let digest = &layer.digest;
        let info = InfoRequest { digest: digest.clone(), ..InfoRequest::default() };
        let info = match answered(client.call(info)).await {
            Ok(response) => response.info.unwrap_or_default(),
            Err(status) if status.code() == Code::NotFound => {
                return Err(CatalogError::Gone { digest: digest.clone() });
            }
            Err(status) => return Err(failed(digest)(status)),
        };
        let responses = answered(client.stream(whole(digest))).await.map_err(failed(digest))?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(pass_on(responses, sender));
        let size_bytes = u64::try_from(info.size).unwrap_or_default();
        Ok(Blob { receiver, part: io::Cursor::default(), size_bytes })
    }

    /// Fails when the layer's blob is not the one that its digest names.
    pub(crate) async fn check(&self, namespace: &str, layer: &Layer) -> Result<(), CatalogError> {
        let blob = self.blob(namespace, layer).await?;
        let digest = layer.digest.clone();
        let checked = spawn_blocking(move || {
            let expected = Sha256::from_oci(&digest).map_err(io::Error::other)?;
            let size_bytes = blob.size_bytes;
            io::copy(&mut VerifiedReader::new(blob, expected, size_bytes), &mut io::sink())
        });
        match checked.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(_) => Ok(()),
            Err(source) => Err(CatalogError::Damaged { digest: layer.digest.clone(), source }),
        }
    }

    /// Forgets manifests: they are read again when they are needed.
    pub(crate) async fn forget(&self) {
        self.manifests.lock().await.clear();
    }
}

/// A blob as it comes from containerd.
pub(crate) struct Blob {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
    part: io::Cursor<Vec<u8>>,
    size_bytes: u64,
}

impl Read for Blob {
    /// Waits for the next part. Must not be called on a thread of the async runtime.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.part.read(buffer)?;
            if read != 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.receiver.blocking_recv() {
                Some(part) => self.part = io::Cursor::new(part?),
                None => return Ok(0),
            }
        }
    }
}

async fn pass_on(
    mut responses: Responses<ReadContentResponse>,
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
) {
    loop {
        let part = match answered(responses.next()).await {
            Ok(Some(response)) => Ok(response.data),
            Ok(None) => return,
            Err(status) => Err(io::Error::other(format!("containerd: {status}"))),
        };
        let last = part.is_err();
        if sender.send(part).await.is_err() || last {
            return;
        }
    }
}

/// Digests of the manifests in a namespace.
async fn list(client: &Client) -> Result<Vec<String>, CatalogError> {
    let filters = vec![MANIFESTS.to_owned()];
    let request = ListContentRequest { filters, ..ListContentRequest::default() };
    let failed = failed("list of manifests");
    let mut responses = answered(client.stream(request)).await.map_err(&failed)?;
    let mut digests = Vec::new();
    while let Some(response) = answered(responses.next()).await.map_err(&failed)? {
        digests.extend(response.info.into_iter().map(|info| info.digest));
    }
    Ok(digests)
}

/// The layers of a manifest by chain id; `None` for one that is no image's or not complete, as those of other platforms.
async fn read_image(
    client: &Client,
    digest: &str,
) -> Result<Option<HashMap<Sha256, Layer>>, CatalogError> {
    let Some(manifest) = document(client, digest).await? else { return Ok(None) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest) else { return Ok(None) };
    let Some(config) = document(client, &manifest.config.digest).await? else { return Ok(None) };
    let Ok(config) = serde_json::from_slice::<Config>(&config) else { return Ok(None) };
    Ok(layers(&manifest, &config))
}

fn layers(manifest: &Manifest, config: &Config) -> Option<HashMap<Sha256, Layer>> {
    let diff_ids = &config.rootfs.diff_ids;
    let diff_ids: Vec<Sha256> =
        diff_ids.iter().map(|text| Sha256::from_oci(text)).collect::<Result<_, _>>().ok()?;
    if diff_ids.len() != manifest.layers.len() || diff_ids.len() > MAX_LAYERS {
        return None;
    }
    let chain = chain_ids(&diff_ids);
    let layers = chain.iter().zip(&diff_ids).zip(&manifest.layers);
    let layer = |((chain, diff_id), descriptor): ((&Sha256, &Sha256), &Descriptor)| {
        let media_type = descriptor.media_type.parse();
        (*chain, Layer { diff_id: *diff_id, media_type, digest: descriptor.digest.clone() })
    };
    Some(layers.map(layer).collect())
}

/// A small blob, if it is there.
async fn document(client: &Client, digest: &str) -> Result<Option<Vec<u8>>, CatalogError> {
    let mut bytes = Vec::new();
    let mut responses = match answered(client.stream(whole(digest))).await {
        Ok(responses) => responses,
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(failed(digest)(status)),
    };
    loop {
        match answered(responses.next()).await {
            Ok(Some(part)) => bytes.extend_from_slice(&part.data),
            Ok(None) => break,
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(digest)(status)),
        }
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Ok(None);
        }
    }
    // containerd checks what it is given; what it gives is checked here, since it is kept.
    Ok(Sha256::from_oci(digest)
        .is_ok_and(|expected| Sha256::of(&bytes) == expected)
        .then_some(bytes))
}

fn whole(digest: &str) -> ReadContentRequest {
    ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() }
}

fn failed(what: &str) -> impl Fn(Status) -> CatalogError + '_ {
    |status| CatalogError::Containerd { what: what.to_owned(), status }
}

async fn answered<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = || format!("no answer of containerd in {} s", MESSAGE_TIMEOUT.as_secs());
    timeout(MESSAGE_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(late())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: &[(&str, &str)], diff_ids: &[&str]) -> Option<HashMap<Sha256, Layer>> {
        let descriptor = |(media_type, digest): &(&str, &str)| Descriptor {
            digest: (*digest).into(),
            media_type: format!("application/vnd.oci.image.{media_type}"),
        };
        let manifest = Manifest {
            config: Descriptor { digest: String::new(), media_type: String::new() },
            layers: layers.iter().map(descriptor).collect(),
        };
        let diff_ids = diff_ids.iter().map(|text| Sha256::of(text).to_oci()).collect();
        super::layers(&manifest, &Config { rootfs: RootFs { diff_ids } })
    }

    #[test]
    fn layers_are_found_by_chain_id() {
        let tar = "layer.v1.tar";
        let found = image(&[(tar, "sha256:1"), ("layer.v1.tar+gzip", "sha256:2")], &["a", "b"]);
        let found = found.unwrap();
        let (a, b) = (Sha256::of("a"), Sha256::of("b"));
        let upper = &found[&Sha256::of(format!("sha256:{a} sha256:{b}"))];
        assert_eq!((upper.diff_id, upper.digest.as_str()), (b, "sha256:2"));
        assert_eq!(upper.media_type, Ok(LayerMediaType::TarGzip));
        assert_eq!(found[&a].diff_id, a);
    }

    #[test]
    fn what_does_not_fit_is_no_image() {
        let tar = ("layer.v1.tar", "sha256:1");
        assert_eq!(image(&[tar], &["a", "b"]), None);
        assert_eq!(image(&[tar, tar], &["a"]), None);
        // A layer of a kind that is not read leaves the others.
        let found = image(&[tar, ("layer.v1.tar+encrypted", "sha256:2")], &["a", "b"]).unwrap();
        assert_eq!(found.values().filter(|layer| layer.media_type.is_err()).count(), 1);
    }
}
