use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ah_digest::Sha256;
use ah_verity::{VerityError, VerityInfo};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::LayerImage;

/// Name of the file in a snapshot's folder.
const FILE_NAME: &str = "layers.json";
/// Version of the file's form.
const VERSION: u32 = 1;
/// Longest file, bytes: 500 layers, which is more than overlayfs takes, with long paths and reasons.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The block images of a containerd snapshot: the snapshotter writes them down in the snapshot's folder, the runtime
/// reads them from there. The mount that containerd carries between the two is an ordinary overlay, which every other
/// runtime, and containerd itself, can mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLayers {
    version: u32,
    /// The snapshot's key, for people.
    pub snapshot: String,
    /// Whether the snapshot is a container's own, or a view for reading only.
    pub writable: bool,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Layer {
    Image(Image),
    Missing(Missing),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    image: PathBuf,
    diff_id: Sha256,
    root_hash: Sha256,
    data_blocks: u64,
    salt: Sha256,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Missing {
    missing: String,
}

/// A layer of a snapshot: its diff id and block image, or why there is none.
pub type SnapshotLayer = Result<(Sha256, LayerImage), String>;

/// Why the block images of a snapshot are not known.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotLayersError {
    /// The mount has neither `upperdir` nor `lowerdir`.
    #[error(
        "rootfs is not a snapshot of anchorhold-snapshotter: its mount names no overlay folder: {options:?}"
    )]
    NotASnapshot {
        /// The mount's options.
        options: Vec<String>,
    },
    /// The file could not be read or written.
    #[error("layers of the snapshot: {path} not accessible")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file has another form.
    #[error("layers of the snapshot: {path} is not acceptable")]
    Form {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// The file has another version.
    #[error("layers of the snapshot: {path} has version {found}, expected {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// A layer has no block image.
    #[error("layer {number} of {count} from the top has no block image: {reason}")]
    Missing {
        /// Which, from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// The snapshotter's reason.
        reason: String,
    },
    /// A layer's verity parameters are out of range.
    #[error("layer {number} from the top has parameters out of range")]
    Parameters {
        /// Which, from 1.
        number: usize,
        /// The reason.
        source: VerityError,
    },
}

impl SnapshotLayersError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotASnapshot { .. } => Some(
                "set the snapshotter of this runtime to \"anchorhold\" in containerd's configuration",
            ),
            _ => None,
        }
    }
}

impl SnapshotLayers {
    /// Of these layers, top first.
    pub fn new(
        snapshot: impl Into<String>,
        writable: bool,
        layers: impl IntoIterator<Item = SnapshotLayer>,
    ) -> Self {
        let layers = layers.into_iter().map(Layer::from).collect();
        Self { version: VERSION, snapshot: snapshot.into(), writable, layers }
    }

    /// Reads what stands beside the snapshot that an overlay mount is of.
    ///
    /// # Errors
    /// [`SnapshotLayersError`]; that a layer has no image is told by [`Self::images`].
    pub fn of_mount(options: &[impl AsRef<str>]) -> Result<Self, SnapshotLayersError> {
        match folder_of(options) {
            Some(folder) => Self::read(folder),
            None => Err(SnapshotLayersError::NotASnapshot {
                options: options.iter().map(|option| option.as_ref().to_owned()).collect(),
            }),
        }
    }

    /// Reads what stands in a snapshot's folder.
    ///
    /// # Errors
    /// [`SnapshotLayersError`].
    pub fn read(folder: &Path) -> Result<Self, SnapshotLayersError> {
        let path = folder.join(FILE_NAME);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(MAX_FILE_BYTES).read_to_end(&mut text));
        if let Err(source) = read {
            return Err(SnapshotLayersError::File { path, source });
        }
        match serde_json::from_slice::<Self>(&text) {
            Ok(layers) if layers.version == VERSION => Ok(layers),
            Ok(other) => Err(SnapshotLayersError::Version { path, found: other.version }),
            Err(source) => Err(SnapshotLayersError::Form { path, source }),
        }
    }

    /// Writes the file into a snapshot's folder; whoever reads it sees all of it or none. It is not flushed to disk:
    /// the snapshotter writes it anew whenever it is missing.
    ///
    /// # Errors
    /// [`SnapshotLayersError::File`].
    pub fn write(&self, folder: &Path) -> Result<(), SnapshotLayersError> {
        let write = || {
            let mut file = NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.persist(folder.join(FILE_NAME))?;
            Ok(())
        };
        write().map_err(|source| SnapshotLayersError::File { path: folder.join(FILE_NAME), source })
    }

    /// The block images, top first.
    ///
    /// # Errors
    /// [`SnapshotLayersError::Missing`] for the first layer that has none.
    pub fn images(&self) -> Result<Vec<LayerImage>, SnapshotLayersError> {
        let count = self.layers.len();
        let image = |(index, layer): (usize, &Layer)| match layer {
            Layer::Image(image) => image.checked(index + 1),
            Layer::Missing(Missing { missing }) => Err(SnapshotLayersError::Missing {
                number: index + 1,
                count,
                reason: missing.clone(),
            }),
        };
        self.layers.iter().enumerate().map(image).collect()
    }
}

impl Image {
    fn checked(&self, number: usize) -> Result<LayerImage, SnapshotLayersError> {
        let (root_hash, data_blocks) = (self.root_hash, self.data_blocks);
        let info = VerityInfo { root_hash, data_blocks, salt: *self.salt.as_bytes() };
        let info =
            info.checked().map_err(|source| SnapshotLayersError::Parameters { number, source })?;
        Ok(LayerImage { path: self.image.clone(), info })
    }
}

impl From<SnapshotLayer> for Layer {
    fn from(layer: SnapshotLayer) -> Self {
        match layer {
            Ok((diff_id, LayerImage { path, info })) => Self::Image(Image {
                image: path,
                diff_id,
                root_hash: info.root_hash,
                data_blocks: info.data_blocks,
                salt: Sha256::new(info.salt),
            }),
            Err(missing) => Self::Missing(Missing { missing }),
        }
    }
}

/// The folder that holds `upperdir`, or, of a view, the first of `lowerdir`.
fn folder_of(options: &[impl AsRef<str>]) -> Option<&Path> {
    let value = |name: &str| options.iter().find_map(|o| o.as_ref().strip_prefix(name));
    let own = match value("upperdir=") {
        Some(upper) => upper,
        None => value("lowerdir=")?.split(':').next()?,
    };
    Path::new(own).parent().filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(path: &str) -> SnapshotLayer {
        let info = VerityInfo { root_hash: Sha256::of(path), data_blocks: 7, salt: [0; 32] };
        Ok((Sha256::of("tar"), LayerImage { path: path.into(), info }))
    }

    #[test]
    fn the_folder_is_that_of_the_mount() {
        let check = |options: &[&str], expect: Option<&str>| {
            assert_eq!(folder_of(options), expect.map(Path::new), "{options:?}");
        };
        check(&["workdir=/r/3/work", "upperdir=/r/3/fs", "lowerdir=/r/2/fs:/r/1/fs"], Some("/r/3"));
        check(&["lowerdir=/r/4/fs:/r/2/fs"], Some("/r/4"));
        check(&["lowerdir=r/4/fs"], None);
        check(&["rbind", "ro"], None);
        check(&["upperdir=fs"], None);
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let fs = folder.path().join("fs").display().to_string();
        let options = [format!("upperdir={fs}"), "lowerdir=/x".to_owned()];
        let missing = SnapshotLayers::of_mount(&options);
        assert!(matches!(missing, Err(SnapshotLayersError::File { .. })), "{missing:?}");

        let written = SnapshotLayers::new("k8s.io/3/a", true, [layer("/top"), layer("/low")]);
        written.write(folder.path()).unwrap();
        let read = SnapshotLayers::of_mount(&options).unwrap();
        assert_eq!(read, written);
        let paths: Vec<_> = read.images().unwrap().into_iter().map(|image| image.path).collect();
        assert_eq!(paths, [Path::new("/top"), Path::new("/low")]);
    }

    #[test]
    fn a_layer_without_image_is_named_with_its_reason() {
        let layers = SnapshotLayers::new("a", true, [layer("/top"), Err("blob is gone".into())]);
        let error = layers.images().unwrap_err();
        assert_eq!(error.to_string(), "layer 2 of 2 from the top has no block image: blob is gone");
    }

    #[test]
    fn other_forms_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str, expect: fn(&SnapshotLayersError) -> bool| {
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            let error = SnapshotLayers::read(folder.path()).unwrap_err();
            assert!(expect(&error), "{text}: {error:?}");
        };
        let of_version = |version| {
            format!(r#"{{"version":{version},"snapshot":"a","writable":true,"layers":[]}}"#)
        };
        check(&of_version(2), |e| matches!(e, SnapshotLayersError::Version { found: 2, .. }));
        check(&of_version(1).replace("}", ",\"more\":1}"), |e| {
            matches!(e, SnapshotLayersError::Form { .. })
        });
        check("", |e| matches!(e, SnapshotLayersError::Form { .. }));
    }
}
