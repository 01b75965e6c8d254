use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ah_convert::{CONVERSION_VERSION, ConvertError, convert_layer};
use ah_digest::Sha256;
use ah_oci::LayerMediaType;
use ah_verity::VerityInfo;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::check::{self, CheckError};
use crate::record::Record;

/// A folder of converted layers. Several processes may use it at once.
#[derive(Debug, Clone)]
pub struct LayerStore {
    folder: PathBuf,
}

/// A layer that can be given to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerImage {
    /// The layer block image; to be opened for reading only.
    pub path: PathBuf,
    /// What opens it.
    pub info: VerityInfo,
}

/// Why a layer image is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The store's folder or a file in it.
    #[error("layer store: {path} not accessible")]
    Store {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The layer's bytes could not be opened.
    #[error("layer {diff_id} not opened")]
    Open {
        /// The layer.
        diff_id: Sha256,
        /// The reason.
        source: io::Error,
    },
    /// The layer was refused.
    #[error("layer {diff_id} not converted")]
    Convert {
        /// The layer.
        diff_id: Sha256,
        /// The reason.
        source: ConvertError,
    },
}

impl LayerStore {
    /// Opens a store; the folder is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LayersError> {
        let folder = dir.as_ref().join(format!("v{CONVERSION_VERSION}"));
        fs::create_dir_all(&folder).map_err(in_store(&folder))?;
        Ok(Self { folder })
    }

    /// The image of a layer, converted if it is not there. `open` gives the layer's blob and is called only then.
    ///
    /// A stored image whose quick check fails is made anew. Of several callers that need the same layer, one converts
    /// and the others wait for it.
    ///
    /// # Errors
    /// [`LayersError`].
    pub fn image_for(
        &self,
        diff_id: &Sha256,
        media_type: LayerMediaType,
        open: impl FnOnce() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<LayerImage, LayersError> {
        if let Some(image) = self.cached(diff_id) {
            return Ok(image);
        }
        let path = self.path(diff_id, "lock");
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.map_err(in_store(&path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| in_store(&path)(e.into()))?;
        // Whoever held the lock may have made it. The lock ends with its file, also when this process is killed.
        match self.cached(diff_id) {
            Some(image) => Ok(image),
            None => self.convert(diff_id, media_type, open),
        }
    }

    /// A stored image, if there is one and it passes the quick check.
    pub fn cached(&self, diff_id: &Sha256) -> Option<LayerImage> {
        let image = self.stored(diff_id).ok()?;
        check::quick(&File::open(&image.path).ok()?, &image.info).ok()?;
        Some(image)
    }

    /// Deletes the images of all layers but these, what unfinished conversions left, and what other conversion versions
    /// made. Nobody else may use the store meanwhile: a conversion that runs would lose its file.
    ///
    /// # Errors
    /// [`LayersError::Store`].
    pub fn retain(&self, keep: impl Fn(&Sha256) -> bool) -> Result<(), LayersError> {
        for path in entries(&self.folder)? {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let kept = stem.parse().is_ok_and(|diff_id| keep(&diff_id));
            if !kept {
                remove(&path).map_err(in_store(&path))?;
            }
        }
        let above = self.folder.parent().unwrap_or(&self.folder);
        for path in entries(above)?.into_iter().filter(|path| *path != self.folder) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok()) {
                fs::remove_dir_all(&path).map_err(in_store(&path))?;
            }
        }
        Ok(())
    }

    fn stored(&self, diff_id: &Sha256) -> Result<LayerImage, CheckError> {
        let text = check::read_record(File::open(self.path(diff_id, "json"))?)?;
        let info = Record::parse(&text, diff_id)?;
        Ok(LayerImage { path: self.path(diff_id, "image"), info })
    }

    fn convert(
        &self,
        diff_id: &Sha256,
        media_type: LayerMediaType,
        open: impl FnOnce() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<LayerImage, LayersError> {
        let path = self.path(diff_id, "image");
        let file = NamedTempFile::new_in(&self.folder).map_err(in_store(&self.folder))?;
        let layer = open().map_err(|source| LayersError::Open { diff_id: *diff_id, source })?;
        let converted = convert_layer(layer, media_type, diff_id, file.as_file())
            .map_err(|source| LayersError::Convert { diff_id: *diff_id, source })?;
        let record = self.path(diff_id, "json");
        // The record goes first and comes last: without it the image does not count.
        remove(&record).map_err(in_store(&record))?;
        persist(file, &path).map_err(in_store(&path))?;
        self.write_record(&record, &Record::of(&converted)).map_err(in_store(&record))?;
        Ok(LayerImage { path, info: converted.info })
    }

    fn write_record(&self, path: &Path, record: &Record) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(serde_json::to_string(record)?.as_bytes())?;
        persist(file, path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, diff_id: &Sha256, extension: &str) -> PathBuf {
        self.folder.join(format!("{diff_id}.{extension}"))
    }
}

impl LayerImage {
    /// Hashes the whole image and compares data, tree and superblock with `info`.
    ///
    /// # Errors
    /// [`CheckError`] that names the first difference found.
    pub fn check(&self) -> Result<(), CheckError> {
        check::full(&File::open(&self.path)?, &self.info)
    }
}

fn in_store(path: &Path) -> impl Fn(io::Error) -> LayersError + '_ {
    |source| LayersError::Store { path: path.to_owned(), source }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, LayersError> {
    let entries = fs::read_dir(folder).map_err(in_store(folder))?;
    entries.map(|entry| Ok(entry.map_err(in_store(folder))?.path())).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a temporary file its name once its bytes are on disk.
fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().set_permissions(Permissions::from_mode(0o444))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
