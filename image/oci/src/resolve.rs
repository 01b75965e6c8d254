use ah_digest::{DigestError, Sha256};
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::media::{LayerMediaType, UnsupportedMediaType};

/// Longest index, manifest or config, bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of one image.
pub const MAX_LAYERS: usize = 128;

/// What an image must be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// `linux/amd64`.
    #[default]
    LinuxAmd64,
}

/// One layer: where its bytes are named, and what they must unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// SHA-256 of the unpacked tar, from the image config.
    pub diff_id: Sha256,
    /// SHA-256 of the blob as stored.
    pub digest: Sha256,
    /// Length of the blob, bytes.
    pub size_bytes: u64,
    /// How the blob is packed.
    pub media_type: LayerMediaType,
}

/// An image whose documents were all checked against their digests.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// What the name stood for: an index or a manifest.
    pub target_digest: Sha256,
    /// The manifest of the wanted platform.
    pub manifest_digest: Sha256,
    /// The image config.
    pub config_digest: Sha256,
    /// The image config, parsed.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<LayerDescriptor>,
}

/// Why documents do not make an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not the JSON that it should be.
    #[error("{what} is not valid")]
    Json {
        /// The document.
        what: &'static str,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A field has a value that is not accepted.
    #[error("{what} is not acceptable: found {found:?}, expected {expected}")]
    Field {
        /// The field.
        what: &'static str,
        /// Its value, at most 160 characters of it.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A document that could be read as a manifest and as an index.
    #[error("document is both an image manifest and an index")]
    Ambiguous,
    /// No manifest for the platform.
    #[error("image index has no manifest for linux/amd64")]
    NoPlatform,
    /// Several manifests for the platform.
    #[error("image index has several manifests for linux/amd64")]
    SeveralPlatforms,
    /// Layers and diff ids differ in number, or are too many.
    #[error(
        "image has {layers} layers and {diff_ids} diff ids, expected equal numbers up to {MAX_LAYERS}"
    )]
    Layers {
        /// Layers in the manifest.
        layers: usize,
        /// Diff ids in the config.
        diff_ids: usize,
    },
    /// A digest that is not SHA-256.
    #[error("digest is not acceptable")]
    Digest(#[from] DigestError),
    /// A layer that is packed in another way.
    #[error("layer is not acceptable")]
    Layer(#[from] UnsupportedMediaType),
}

/// What a document claims to be; a document that is two things at once is read differently by two readers.
#[derive(Deserialize)]
struct Claims {
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

fn claims(bytes: &[u8], what: &'static str) -> Result<Claims, ImageError> {
    let claims: Claims =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    if claims.manifests.is_some() && (claims.layers.is_some() || claims.config.is_some()) {
        return Err(ImageError::Ambiguous);
    }
    Ok(claims)
}

/// Whether a verified document is an index (else a manifest).
///
/// # Errors
/// [`ImageError`] when it is neither or both.
pub(crate) fn is_index(bytes: &[u8]) -> Result<bool, ImageError> {
    Ok(claims(bytes, "image document")?.manifests.is_some())
}

/// Parses an image index or Docker manifest list from verified bytes.
///
/// # Errors
/// [`ImageError`] when it is another document.
pub fn parse_index(bytes: &[u8]) -> Result<ImageIndex, ImageError> {
    let what = "image index";
    claims(bytes, what)?;
    let index: ImageIndex =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    schema_version(index.schema_version())?;
    let media_type = index.media_type().as_ref().map(ToString::to_string);
    embedded_media_type(
        media_type,
        ["oci.image.index.v1", "docker.distribution.manifest.list.v2"],
    )?;
    Ok(index)
}

/// Parses an image manifest from verified bytes.
///
/// # Errors
/// [`ImageError`] when it is another document, or not of an image.
pub fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest, ImageError> {
    let what = "image manifest";
    claims(bytes, what)?;
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    schema_version(manifest.schema_version())?;
    let media_type = manifest.media_type().as_ref().map(ToString::to_string);
    embedded_media_type(media_type, ["oci.image.manifest.v1", "docker.distribution.manifest.v2"])?;
    let config = manifest.config().media_type().to_string();
    match config.as_str() {
        "application/vnd.oci.image.config.v1+json"
        | "application/vnd.docker.container.image.v1+json" => Ok(manifest),
        _ => Err(field("config media type", &config, "that of an OCI or Docker image config")),
    }
}

fn schema_version(found: u32) -> Result<(), ImageError> {
    if found == 2 { Ok(()) } else { Err(field("schema version", &found.to_string(), "2")) }
}

fn embedded_media_type(found: Option<String>, expected: [&str; 2]) -> Result<(), ImageError> {
    let Some(found) = found else { return Ok(()) };
    let accepted = |name: &&str| found == format!("application/vnd.{name}+json");
    match expected.iter().any(accepted) {
        true => Ok(()),
        false => Err(field("embedded media type", &found, "that of the document's descriptor")),
    }
}

fn field(what: &'static str, found: &str, expected: &'static str) -> ImageError {
    ImageError::Field { what, found: found.chars().take(160).collect(), expected }
}

/// The one manifest of an index that is for `platform`. An index with a single manifest and no platform at it is
/// accepted: the config says the platform again, and is checked.
///
/// # Errors
/// [`ImageError::NoPlatform`], [`ImageError::SeveralPlatforms`].
pub fn select_manifest(index: &ImageIndex, platform: Platform) -> Result<&Descriptor, ImageError> {
    let Platform::LinuxAmd64 = platform;
    if let [only] = index.manifests().as_slice()
        && only.platform().is_none()
    {
        return Ok(only);
    }
    let mut fitting = index.manifests().iter().filter(|descriptor| {
        descriptor
            .platform()
            .as_ref()
            .is_some_and(|found| *found.os() == Os::Linux && *found.architecture() == Arch::Amd64)
    });
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(ImageError::NoPlatform),
        (Some(_), Some(_)) => Err(ImageError::SeveralPlatforms),
    }
}

/// Parses an image config from verified bytes.
///
/// # Errors
/// [`ImageError`] when it is none, or for another platform.
pub fn parse_config(bytes: &[u8], platform: Platform) -> Result<ImageConfiguration, ImageError> {
    let Platform::LinuxAmd64 = platform;
    let what = "image config";
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::Amd64 {
        let found = format!("{}/{}", config.os(), config.architecture());
        return Err(field("config platform", &found, "linux/amd64"));
    }
    if config.rootfs().typ() != "layers" {
        return Err(field("config rootfs type", config.rootfs().typ(), "layers"));
    }
    Ok(config)
}

impl ResolvedImage {
    /// Puts verified documents together.
    ///
    /// # Errors
    /// [`ImageError`] when layers and diff ids do not pair up or a layer cannot be read.
    pub fn new(
        target_digest: Sha256,
        manifest_digest: Sha256,
        manifest: &ImageManifest,
        config: ImageConfiguration,
    ) -> Result<Self, ImageError> {
        let (layers, diff_ids) = (manifest.layers(), config.rootfs().diff_ids());
        if layers.len() != diff_ids.len() || layers.len() > MAX_LAYERS {
            let (layers, diff_ids) = (layers.len(), diff_ids.len());
            return Err(ImageError::Layers { layers, diff_ids });
        }
        let layers = layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| {
                Ok(LayerDescriptor {
                    diff_id: Sha256::from_oci(diff_id)?,
                    digest: Sha256::from_oci(layer.digest().as_ref())?,
                    size_bytes: layer.size(),
                    media_type: layer.media_type().to_string().parse()?,
                })
            })
            .collect::<Result<_, ImageError>>()?;
        let config_digest = Sha256::from_oci(manifest.config().digest().as_ref())?;
        Ok(Self { target_digest, manifest_digest, config_digest, config, layers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(media_type: &str, platform: Option<&str>) -> Value {
        let mut value =
            json!({"mediaType": media_type, "digest": Sha256::of("x").to_oci(), "size": 1});
        if let Some((os, architecture)) = platform.and_then(|text| text.split_once('/')) {
            value["platform"] = json!({"os": os, "architecture": architecture});
        }
        value
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.image.config.v1+json", None),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", None)],
        })
    }

    fn config() -> Value {
        let diff_ids = [Sha256::of("y").to_oci()];
        json!({
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
    }

    fn image(manifest: &Value, config: &Value) -> Result<ResolvedImage, ImageError> {
        let manifest = parse_manifest(manifest.to_string().as_bytes())?;
        let config = parse_config(config.to_string().as_bytes(), Platform::LinuxAmd64)?;
        ResolvedImage::new(Sha256::of("t"), Sha256::of("m"), &manifest, config)
    }

    fn with(mut value: Value, pointer: &str, new: Value) -> Value {
        match pointer.rsplit_once('/') {
            Some((parent, key)) => value.pointer_mut(parent).unwrap()[key] = new,
            None => unreachable!(),
        }
        value
    }

    #[test]
    fn layers_pair_up_with_diff_ids() {
        let found = image(&manifest(), &config()).unwrap();
        assert_eq!(found.layers[0].diff_id, Sha256::of("y"));
        assert_eq!(found.layers[0].media_type, LayerMediaType::TarGzip);
        let none = with(config(), "/rootfs/diff_ids", json!([]));
        let error = image(&manifest(), &none);
        assert!(matches!(error, Err(ImageError::Layers { layers: 1, diff_ids: 0 })));
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let error = image(&manifest(), &with(config(), "/rootfs/diff_ids", json!([sha512])));
        assert!(matches!(error, Err(ImageError::Digest(_))));
        let foreign = json!([descriptor("application/vnd.oci.image.layer.v1.tar+encrypted", None)]);
        let error = image(&with(manifest(), "/layers", foreign), &config());
        assert!(matches!(error, Err(ImageError::Layer(_))));
    }

    #[test]
    fn documents_are_what_they_say() {
        let field = |manifest: &Value, config: &Value| {
            assert!(matches!(image(manifest, config), Err(ImageError::Field { .. })), "{manifest}");
        };
        field(&with(manifest(), "/schemaVersion", json!(1)), &config());
        let index = json!("application/vnd.oci.image.index.v1+json");
        field(&with(manifest(), "/mediaType", index), &config());
        let artifact = descriptor("application/vnd.example+json", None);
        field(&with(manifest(), "/config", artifact), &config());
        field(&manifest(), &with(config(), "/architecture", json!("arm64")));
        field(&manifest(), &with(config(), "/os", json!("windows")));
        field(&manifest(), &with(config(), "/rootfs/type", json!("other")));
    }

    #[test]
    fn attack_a_document_that_is_two_things_is_refused() {
        let both = with(manifest(), "/manifests", json!([])).to_string();
        assert!(matches!(parse_manifest(both.as_bytes()), Err(ImageError::Ambiguous)));
        assert!(matches!(parse_index(both.as_bytes()), Err(ImageError::Ambiguous)));
        assert!(matches!(is_index(both.as_bytes()), Err(ImageError::Ambiguous)));
    }

    #[test]
    fn one_manifest_of_an_index_is_for_the_platform() {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let select = |platforms: &[Option<&str>]| {
            let manifests: Vec<_> = platforms.iter().map(|p| descriptor(manifest, *p)).collect();
            let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
            select_manifest(&parse_index(text.as_bytes()).unwrap(), Platform::LinuxAmd64).map(drop)
        };
        let (amd64, arm64, unknown) =
            (Some("linux/amd64"), Some("linux/arm64"), Some("unknown/unknown"));
        assert!(select(&[arm64, amd64, unknown]).is_ok());
        assert!(select(&[None]).is_ok());
        assert!(matches!(select(&[arm64, unknown]), Err(ImageError::NoPlatform)));
        assert!(matches!(select(&[None, None]), Err(ImageError::NoPlatform)));
        assert!(matches!(select(&[amd64, amd64]), Err(ImageError::SeveralPlatforms)));
    }
}
