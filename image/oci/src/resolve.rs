use std::fmt;
use std::str::FromStr;

use ah_digest::{DigestError, Sha256};
use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os, Platform as FoundPlatform,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::media::{LayerMediaType, UnsupportedMediaType};

/// Longest index, manifest or config, bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of one image.
pub const MAX_LAYERS: usize = 128;

/// What an image must be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Platform {
    /// `linux/amd64`.
    #[default]
    LinuxAmd64,
    /// `linux/arm64`.
    LinuxArm64,
}

impl Platform {
    /// As image indexes and people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
        }
    }

    fn architecture(self) -> Arch {
        match self {
            Self::LinuxAmd64 => Arch::Amd64,
            Self::LinuxArm64 => Arch::ARM64,
        }
    }

    /// The variant that every machine of the platform runs (containerd, platforms: the same as none).
    fn base_variant(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "v1",
            Self::LinuxArm64 => "v8",
        }
    }

    fn fits(self, found: &FoundPlatform) -> bool {
        *found.os() == Os::Linux
            && *found.architecture() == self.architecture()
            && found.variant().as_ref().is_none_or(|v| v.is_empty() || v == self.base_variant())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Platform {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let known = [Self::LinuxAmd64, Self::LinuxArm64];
        let found = known.into_iter().find(|platform| platform.name() == text);
        found.ok_or_else(|| field("platform", text, "linux/amd64 or linux/arm64"))
    }
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
    /// A manifest from before image configs and digests of layers.
    #[error(
        "image manifest has schema version 1, which does not name its layers by what they unpack to"
    )]
    Schema1,
    /// No manifest for the platform.
    #[error("image index has no manifest for {wanted}; it has {}", found.join(", "))]
    NoPlatform {
        /// The platform.
        wanted: Platform,
        /// Those that are there.
        found: Vec<String>,
    },
    /// Several manifests for the platform.
    #[error("image index has several manifests for {wanted}")]
    SeveralPlatforms {
        /// The platform.
        wanted: Platform,
    },
    /// Indexes are nested too deep.
    #[error("image indexes are nested too deep")]
    Depth,
    /// A layer that lies elsewhere.
    #[error("layer {digest} is a foreign layer: its bytes are not in the image's own registry")]
    ForeignLayer {
        /// Its digest.
        digest: String,
    },
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

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => Some(
                "push the image again with a current tool, for example `skopeo copy --format oci`, which writes a \
                 manifest of schema version 2"
                    .into(),
            ),
            Self::NoPlatform { .. } => {
                Some("ask for one of these platforms, or build the image for this one too".into())
            }
            Self::ForeignLayer { .. } => {
                Some("push the image with its foreign layers included, or use another base image".into())
            }
            _ => None,
        }
    }
}

/// What a document claims to be; a document that is two things at once is read differently by two readers.
#[derive(Deserialize)]
struct Claims {
    #[serde(default, rename = "schemaVersion")]
    schema_version: Option<u32>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

fn claims(bytes: &[u8], what: &'static str) -> Result<Claims, ImageError> {
    let claims: Claims =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    if claims.schema_version == Some(1) {
        return Err(ImageError::Schema1);
    }
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
/// accepted: the config says the platform again, and is checked. Attestations that build tools put beside the images
/// are passed over.
///
/// # Errors
/// [`ImageError::NoPlatform`], [`ImageError::SeveralPlatforms`].
pub fn select_manifest(index: &ImageIndex, platform: Platform) -> Result<&Descriptor, ImageError> {
    if let [only] = index.manifests().as_slice()
        && only.platform().is_none()
    {
        return Ok(only);
    }
    let images = || index.manifests().iter().filter(|descriptor| !is_attestation(descriptor));
    let mut fitting = images()
        .filter(|descriptor| descriptor.platform().as_ref().is_some_and(|p| platform.fits(p)));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let mut found: Vec<String> = images().map(platform_name).collect();
            found.sort();
            found.dedup();
            Err(ImageError::NoPlatform { wanted: platform, found })
        }
        (Some(_), Some(_)) => Err(ImageError::SeveralPlatforms { wanted: platform }),
    }
}

/// BuildKit's attestations: an annotation, and `unknown/unknown` for a platform.
fn is_attestation(descriptor: &Descriptor) -> bool {
    const KIND: &str = "vnd.docker.reference.type";
    let annotated = descriptor.annotations().as_ref().is_some_and(|map| map.contains_key(KIND));
    let unknown = |platform: &FoundPlatform| {
        platform.os().to_string() == "unknown" && platform.architecture().to_string() == "unknown"
    };
    annotated || descriptor.platform().as_ref().is_some_and(unknown)
}

fn platform_name(descriptor: &Descriptor) -> String {
    let Some(platform) = descriptor.platform() else { return "one without a platform".into() };
    let variant = platform.variant().as_ref().map(|v| format!("/{v}")).unwrap_or_default();
    let name = format!("{}/{}{variant}", platform.os(), platform.architecture());
    name.chars().take(60).collect()
}

/// Parses an image config from verified bytes.
///
/// # Errors
/// [`ImageError`] when it is none, or for another platform.
pub fn parse_config(bytes: &[u8], platform: Platform) -> Result<ImageConfiguration, ImageError> {
    let what = "image config";
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what, source })?;
    if *config.os() != Os::Linux || *config.architecture() != platform.architecture() {
        let found = format!("{}/{}", config.os(), config.architecture());
        return Err(field("config platform", &found, platform.name()));
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
                refuse_foreign(layer)?;
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

/// A layer whose bytes only some other place may give out (Windows base images).
fn refuse_foreign(layer: &Descriptor) -> Result<(), ImageError> {
    let media_type = layer.media_type().to_string();
    let foreign = media_type.contains("nondistributable") || media_type.contains(".foreign.");
    if foreign || layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(ImageError::ForeignLayer { digest: layer.digest().to_string() });
    }
    Ok(())
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
        let mut elsewhere = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", None);
        elsewhere["urls"] = json!(["https://elsewhere.example/layer"]);
        let foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", None);
        let kept = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", None);
        for layer in [elsewhere, foreign, kept] {
            let error = image(&with(manifest(), "/layers", json!([layer])), &config());
            assert!(matches!(error, Err(ImageError::ForeignLayer { .. })), "{error:?}");
        }
    }

    #[test]
    fn documents_are_what_they_say() {
        let field = |manifest: &Value, config: &Value| {
            assert!(matches!(image(manifest, config), Err(ImageError::Field { .. })), "{manifest}");
        };
        field(&with(manifest(), "/schemaVersion", json!(3)), &config());
        let old = image(&with(manifest(), "/schemaVersion", json!(1)), &config()).unwrap_err();
        assert!(matches!(old, ImageError::Schema1));
        assert!(old.hint().is_some());
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
        let select_for = |platforms: &[Option<&str>], wanted| {
            let manifests: Vec<_> = platforms.iter().map(|p| descriptor(manifest, *p)).collect();
            let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
            select_manifest(&parse_index(text.as_bytes()).unwrap(), wanted).map(drop)
        };
        let select = |platforms: &[Option<&str>]| select_for(platforms, Platform::LinuxAmd64);
        let (amd64, arm64, unknown) =
            (Some("linux/amd64"), Some("linux/arm64"), Some("unknown/unknown"));
        assert!(select(&[arm64, amd64, unknown]).is_ok());
        assert!(select_for(&[arm64, amd64, unknown], Platform::LinuxArm64).is_ok());
        assert!(select(&[None]).is_ok());
        let error = select(&[arm64, unknown, Some("windows/amd64")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image index has no manifest for linux/amd64; it has linux/arm64, windows/amd64"
        );
        assert!(matches!(select(&[None, None]), Err(ImageError::NoPlatform { .. })));
        assert!(matches!(select(&[amd64, amd64]), Err(ImageError::SeveralPlatforms { .. })));
    }

    #[test]
    fn only_the_variant_that_runs_everywhere_is_taken() {
        let select = |variants: &[&str]| {
            let manifests: Vec<_> = variants
                .iter()
                .map(|variant| {
                    let manifest = "application/vnd.oci.image.manifest.v1+json";
                    let mut value = descriptor(manifest, Some("linux/amd64"));
                    value["platform"]["variant"] = json!(variant);
                    value
                })
                .collect();
            let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
            select_manifest(&parse_index(text.as_bytes()).unwrap(), Platform::LinuxAmd64).map(drop)
        };
        assert!(select(&["v1", "v3"]).is_ok());
        assert!(select(&["v2"]).is_err());
    }

    #[test]
    fn an_attestation_is_no_image() {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let mut attestation = descriptor(manifest, Some("linux/amd64"));
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let manifests = [descriptor(manifest, Some("linux/amd64")), attestation];
        let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        let index = parse_index(text.as_bytes()).unwrap();
        let found = select_manifest(&index, Platform::LinuxAmd64).unwrap();
        assert!(found.annotations().is_none());
    }
}
