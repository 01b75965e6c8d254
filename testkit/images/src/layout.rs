use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ah_digest::Sha256;
use serde_json::{Value, json};

use crate::image::{ImageSpec, LayerSpec, Packing};

/// Makes an OCI layout folder.
#[derive(Debug)]
pub struct LayoutBuilder {
    folder: PathBuf,
    manifests: Vec<Value>,
}

/// What was made of an [`ImageSpec`].
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Digest of the manifest.
    pub manifest_digest: Sha256,
    /// Digest of the config.
    pub config_digest: Sha256,
    /// The layers, lowest first.
    pub layers: Vec<BuiltLayer>,
}

/// What was made of a [`LayerSpec`].
#[derive(Debug, Clone)]
pub struct BuiltLayer {
    /// SHA-256 of the tar.
    pub diff_id: Sha256,
    /// SHA-256 of the blob.
    pub digest: Sha256,
    /// Length of the blob, bytes.
    pub size_bytes: u64,
    /// OCI media type.
    pub media_type: &'static str,
}

impl LayoutBuilder {
    /// Begins a layout in a folder, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(folder.join("blobs/sha256"))?;
        Ok(Self { folder, manifests: Vec::new() })
    }

    /// Adds an image under a name, as `busybox:latest` or `localhost/app:1`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, name: &str, image: &ImageSpec) -> io::Result<BuiltImage> {
        let (built, mut descriptor) = self.image("amd64", image)?;
        descriptor["annotations"] = names(name);
        self.manifests.push(descriptor);
        Ok(built)
    }

    /// Adds an image index under a name, with an image for each architecture; gives the index's digest.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_index(&mut self, name: &str, images: &[(&str, &ImageSpec)]) -> io::Result<Sha256> {
        let all = images.iter().map(|(architecture, image)| Ok(self.image(architecture, image)?.1));
        let index = index(all.collect::<io::Result<Vec<_>>>()?);
        let (digest, size) = self.document(&index)?;
        self.manifests.push(json!({
            "mediaType": index["mediaType"],
            "digest": digest.to_oci(),
            "size": size,
            "annotations": names(name),
        }));
        Ok(digest)
    }

    /// An image, and its manifest's descriptor.
    fn image(&self, architecture: &str, image: &ImageSpec) -> io::Result<(BuiltImage, Value)> {
        let layers = image.layers.iter().map(|l| self.layer(l)).collect::<io::Result<Vec<_>>>()?;
        let (config_digest, config_size) = self.document(&config(architecture, image, &layers))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest.to_oci(),
                "size": config_size,
            },
            "layers": layers.iter().map(|layer| json!({
                "mediaType": layer.media_type,
                "digest": layer.digest.to_oci(),
                "size": layer.size_bytes,
            })).collect::<Vec<_>>(),
        });
        let (manifest_digest, manifest_size) = self.document(&manifest)?;
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest_digest.to_oci(),
            "size": manifest_size,
            "platform": { "architecture": architecture, "os": "linux" },
        });
        Ok((BuiltImage { manifest_digest, config_digest, layers }, descriptor))
    }

    /// Writes the index.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self) -> io::Result<PathBuf> {
        let index = index(self.manifests).to_string();
        std::fs::write(self.folder.join("index.json"), index)?;
        std::fs::write(self.folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(self.folder)
    }

    fn layer(&self, layer: &LayerSpec) -> io::Result<BuiltLayer> {
        let (blob, media_type) = pack(layer)?;
        let digest = self.blob(&blob)?;
        let (diff_id, size_bytes) = (Sha256::of(&layer.tar), blob.len() as u64);
        Ok(BuiltLayer { diff_id, digest, size_bytes, media_type })
    }

    fn document(&self, value: &Value) -> io::Result<(Sha256, u64)> {
        let text = value.to_string();
        Ok((self.blob(text.as_bytes())?, text.len() as u64))
    }

    fn blob(&self, bytes: &[u8]) -> io::Result<Sha256> {
        let digest = Sha256::of(bytes);
        std::fs::write(blob_path(&self.folder, &digest), bytes)?;
        Ok(digest)
    }
}

fn index(manifests: Vec<Value>) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    })
}

/// The annotations by which people find an image.
fn names(name: &str) -> Value {
    json!({ "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name })
}

fn blob_path(folder: &Path, digest: &Sha256) -> PathBuf {
    folder.join("blobs/sha256").join(digest.to_string())
}

fn pack(layer: &LayerSpec) -> io::Result<(Vec<u8>, &'static str)> {
    Ok(match layer.packing {
        Packing::Plain => (layer.tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
        Packing::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&layer.tar)?;
            (encoder.finish()?, "application/vnd.oci.image.layer.v1.tar+gzip")
        }
        Packing::Zstd => {
            (zstd::encode_all(&*layer.tar, 3)?, "application/vnd.oci.image.layer.v1.tar+zstd")
        }
    })
}

fn config(architecture: &str, image: &ImageSpec, layers: &[BuiltLayer]) -> Value {
    let mut process = serde_json::Map::new();
    let mut put = |key: &str, value: Value, empty: bool| {
        if !empty {
            process.insert(key.into(), value);
        }
    };
    let set = |names: &[String]| -> Value {
        names.iter().map(|name| (name.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    put("Entrypoint", json!(image.entrypoint), image.entrypoint.is_empty());
    put("Cmd", json!(image.cmd), image.cmd.is_empty());
    put("Env", json!(image.env), image.env.is_empty());
    put("WorkingDir", json!(image.working_dir), image.working_dir.is_none());
    put("User", json!(image.user), image.user.is_none());
    put("Labels", json!(image.labels), image.labels.is_empty());
    put("ExposedPorts", set(&image.exposed_ports), image.exposed_ports.is_empty());
    put("Volumes", set(&image.volumes), image.volumes.is_empty());
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": process,
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.diff_id.to_oci()).collect::<Vec<_>>(),
        },
    })
}
