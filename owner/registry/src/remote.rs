//! Images from a registry, each document checked against the digest that named it.

use std::io::{self, Read};
use std::time::Duration;

use ah_digest::Sha256;
use ah_oci::{
    LayerDescriptor, MAX_DOCUMENT_BYTES, Platform, VerifiedReader, parse_config, parse_index,
    parse_manifest, read_document, select_manifest,
};
use bytes::Bytes;
use futures_util::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::{Client, Reference};
use tokio::sync::mpsc;

use crate::credentials;
use crate::error::RegistryError;
use crate::images::LayerBlob;
use crate::name;

/// Manifests and indexes of OCI and Docker; schema 1 is not asked for.
const DOCUMENT_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 3;
/// Pieces of a layer held between network and reader.
const PIECES: usize = 16;
/// How long a registry may be silent.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client for all registries.
#[derive(Clone)]
pub(crate) struct Remote {
    client: Client,
}

impl Remote {
    pub(crate) fn new(plain_http: &[String]) -> Self {
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain_http.to_vec()),
            connect_timeout: Some(TIMEOUT),
            read_timeout: Some(TIMEOUT),
            ..ClientConfig::default()
        };
        Self { client: Client::new(config) }
    }

    pub(crate) async fn resolve(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<ah_oci::ResolvedImage, RegistryError> {
        let wrong = |source| RegistryError::Image { name: image.into(), source };
        let (target_digest, mut document) = self.document(image, reference).await?;
        let mut digest = target_digest;
        for _ in 0..MAX_INDEX_DEPTH {
            if !is_index(&document) {
                let manifest = parse_manifest(&document).map_err(wrong)?;
                let config = manifest.config();
                let config_digest = Sha256::from_oci(config.digest().as_ref())
                    .map_err(|error| wrong(error.into()))?;
                let config = self.config(image, reference, config_digest, config.size()).await?;
                let config = parse_config(&config, Platform::LinuxAmd64).map_err(wrong)?;
                return ah_oci::ResolvedImage::new(target_digest, digest, &manifest, config)
                    .map_err(wrong);
            }
            let index = parse_index(&document).map_err(wrong)?;
            let next = select_manifest(&index, Platform::LinuxAmd64).map_err(wrong)?;
            let next_reference = reference.clone_with_digest(next.digest().to_string());
            (digest, document) = self.document(image, &next_reference).await?;
            check_length(image, &document, next.size())?;
        }
        Err(wrong(ah_oci::ImageError::NoPlatform))
    }

    /// A manifest or index, and the SHA-256 of its bytes.
    async fn document(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<(Sha256, Vec<u8>), RegistryError> {
        let auth = credentials::for_registry(reference.registry())?;
        let (bytes, _) = self
            .client
            .pull_manifest_raw(reference, &auth, &DOCUMENT_TYPES)
            .await
            .map_err(|source| failed(image, reference, source))?;
        check_length(image, &bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        let found = Sha256::of(&bytes);
        match name::digest(reference) {
            Some(expected) if expected != found => Err(RegistryError::Digest { found, expected }),
            _ => Ok((found, bytes.to_vec())),
        }
    }

    async fn config(
        &self,
        image: &str,
        reference: &Reference,
        digest: Sha256,
        size_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let not_read = |source| RegistryError::Document { name: image.into(), source };
        if size_bytes > MAX_DOCUMENT_BYTES {
            return Err(not_read(too_large(size_bytes)));
        }
        let descriptor = descriptor(&digest, size_bytes);
        let mut stream = self
            .client
            .pull_blob_stream(reference, &descriptor)
            .await
            .map_err(|source| failed(image, reference, source))?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.map_err(not_read)?);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > size_bytes {
                break;
            }
        }
        read_document(&bytes[..], digest, size_bytes, MAX_DOCUMENT_BYTES).map_err(not_read)
    }

    /// A layer, fetched by the runtime that the calling thread has entered.
    pub(crate) fn open_blob(
        &self,
        image: &str,
        reference: &Reference,
        layer: &LayerDescriptor,
    ) -> io::Result<LayerBlob> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let (client, reference) = (self.client.clone(), reference.clone());
        let (image, descriptor) = (image.to_owned(), descriptor(&layer.digest, layer.size_bytes));
        runtime.spawn(async move {
            let stream = client.pull_blob_stream(&reference, &descriptor).await;
            let mut stream = match stream {
                Ok(stream) => stream,
                Err(source) => {
                    let error = io::Error::other(failed(&image, &reference, source));
                    // a receiver that is gone has its own error
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(piece) = stream.next().await {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        let blob: Box<dyn Read + Send> = Box::new(Pieces { pieces, piece: Bytes::new() });
        Ok(VerifiedReader::new(blob, layer.digest, layer.size_bytes))
    }
}

/// Blocking end of a layer's download.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        let taken = self.piece.split_to(length);
        buffer[..length].copy_from_slice(&taken);
        Ok(length)
    }
}

fn is_index(document: &[u8]) -> bool {
    let value: Result<serde_json::Value, _> = serde_json::from_slice(document);
    // a document that is both is refused by either parser
    value.is_ok_and(|value| value.get("manifests").is_some())
}

fn check_length(image: &str, document: &[u8], expected: u64) -> Result<(), RegistryError> {
    let found = u64::try_from(document.len()).unwrap_or(u64::MAX);
    let source = match found {
        found if found > MAX_DOCUMENT_BYTES => too_large(found),
        found if found != expected => {
            let text = format!("document has {found} bytes, expected {expected}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        }
        _ => return Ok(()),
    };
    Err(RegistryError::Document { name: image.into(), source })
}

fn too_large(found: u64) -> io::Error {
    let text = format!("document has {found} bytes, expected at most {MAX_DOCUMENT_BYTES}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn descriptor(digest: &Sha256, size_bytes: u64) -> OciDescriptor {
    OciDescriptor {
        digest: digest.to_oci(),
        size: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

fn failed(
    image: &str,
    reference: &Reference,
    source: oci_client::errors::OciDistributionError,
) -> RegistryError {
    RegistryError::Registry {
        name: image.into(),
        registry: reference.registry().into(),
        source: Box::new(source),
    }
}
