//! Images from a registry, each document checked against the digest that named it.

mod auth;
mod blob;
mod error;
mod hosts;
mod http;
mod retry;

use std::io;
use std::sync::Arc;

use ah_digest::Sha256;
use ah_oci::{
    LayerDescriptor, MAX_DOCUMENT_BYTES, Platform, VerifiedReader, parse_config, parse_index,
    parse_manifest, read_document, select_manifest,
};

use crate::cache::FactsCache;
use crate::error::RegistryError;
use crate::images::{LayerBlob, Places};
use crate::name::Reference;

pub use error::RemoteError;

use http::Http;

/// Manifests and indexes of OCI and Docker; schema 1 is not asked for.
const DOCUMENT_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 3;

/// A client for all registries.
#[derive(Clone)]
pub(crate) struct Remote {
    http: Arc<Http>,
    cache: Option<FactsCache>,
    offline: bool,
}

impl Remote {
    pub(crate) fn new(places: &Places, cache: Option<FactsCache>) -> Self {
        Self { http: Arc::new(Http::new(places)), cache, offline: places.offline }
    }

    pub(crate) async fn resolve(
        &self,
        image: &str,
        reference: &Reference,
        platform: Platform,
    ) -> Result<ah_oci::ResolvedImage, RegistryError> {
        let wrong = |source| RegistryError::Image { name: image.into(), source };
        let (target_digest, mut document) = self.manifest(image, reference).await?;
        let mut digest = target_digest;
        for _ in 0..MAX_INDEX_DEPTH {
            if !is_index(&document) {
                let manifest = parse_manifest(&document).map_err(wrong)?;
                let config = manifest.config();
                let config_digest = Sha256::from_oci(config.digest().as_ref())
                    .map_err(|error| wrong(error.into()))?;
                let config = self.config(image, reference, config_digest, config.size()).await?;
                let config = parse_config(&config, platform).map_err(wrong)?;
                return ah_oci::ResolvedImage::new(target_digest, digest, &manifest, config)
                    .map_err(wrong);
            }
            let index = parse_index(&document).map_err(wrong)?;
            let next = select_manifest(&index, platform).map_err(wrong)?;
            let next_digest =
                Sha256::from_oci(next.digest().as_ref()).map_err(|error| wrong(error.into()))?;
            let next_reference = reference.with_digest(next_digest);
            (digest, document) = self.manifest(image, &next_reference).await?;
            check_length(image, &document, next.size())?;
        }
        Err(wrong(ah_oci::ImageError::Depth))
    }

    /// A manifest or index, and the SHA-256 of its bytes. With a digest in the reference and the document at hand, no
    /// registry is asked.
    async fn manifest(
        &self,
        image: &str,
        reference: &Reference,
    ) -> Result<(Sha256, Vec<u8>), RegistryError> {
        let digest = reference.digest();
        if let Some((digest, bytes)) = digest.and_then(|d| Some((d, self.known(&d)?))) {
            return Ok((digest, bytes));
        }
        self.must_be_online(image)?;
        let wanted = match &digest {
            Some(digest) => digest.to_oci(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let bytes = self
            .http
            .get(reference, &format!("manifests/{wanted}"), DOCUMENT_TYPES, MAX_DOCUMENT_BYTES)
            .await
            .map_err(|source| failed(image, reference, source))?;
        let found = Sha256::of(&bytes);
        match digest {
            Some(expected) if expected != found => Err(RegistryError::Digest { found, expected }),
            _ => self.keep(bytes).map(|bytes| (found, bytes)),
        }
    }

    async fn config(
        &self,
        image: &str,
        reference: &Reference,
        digest: Sha256,
        size_bytes: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if let Some(bytes) = self.known(&digest) {
            check_length(image, &bytes, size_bytes)?;
            return Ok(bytes);
        }
        self.must_be_online(image)?;
        let not_read = |source| RegistryError::Document { name: image.into(), source };
        if size_bytes > MAX_DOCUMENT_BYTES {
            return Err(not_read(too_large(size_bytes)));
        }
        let bytes = self
            .http
            .get(reference, &format!("blobs/{}", digest.to_oci()), "*/*", size_bytes + 1)
            .await
            .map_err(|source| failed(image, reference, source))?;
        let bytes =
            read_document(&bytes[..], digest, size_bytes, MAX_DOCUMENT_BYTES).map_err(not_read)?;
        self.keep(bytes)
    }

    /// A layer, fetched by the runtime that the calling thread has entered.
    pub(crate) fn open_blob(
        &self,
        image: &str,
        reference: &Reference,
        layer: &LayerDescriptor,
    ) -> io::Result<LayerBlob> {
        self.must_be_online(image).map_err(io::Error::other)?;
        let path = format!("blobs/{}", layer.digest.to_oci());
        let blob = blob::open(Arc::clone(&self.http), reference.clone(), path)?;
        Ok(VerifiedReader::new(Box::new(blob), layer.digest, layer.size_bytes))
    }

    fn known(&self, digest: &Sha256) -> Option<Vec<u8>> {
        self.cache.as_ref()?.document(digest)
    }

    fn keep(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RegistryError> {
        if let Some(cache) = &self.cache {
            cache
                .keep_document(&bytes)
                .map_err(|source| RegistryError::Cache { path: "documents".into(), source })?;
        }
        Ok(bytes)
    }

    fn must_be_online(&self, image: &str) -> Result<(), RegistryError> {
        match self.offline {
            true => Err(RegistryError::Offline { name: image.into() }),
            false => Ok(()),
        }
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

fn failed(image: &str, reference: &Reference, source: RemoteError) -> RegistryError {
    RegistryError::Registry {
        name: image.into(),
        registry: reference.registry().into(),
        source: Box::new(source),
    }
}
