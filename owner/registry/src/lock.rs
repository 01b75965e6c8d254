//! A lock file: what images were when their owner looked, so that a policy can be made again without registry, layers
//! or cache, and comes out the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use ah_convert::CONVERSION_VERSION;
use ah_digest::Sha256;
use ah_oci::Platform;
use ah_pod::ImageFacts;

use crate::images::ResolvedImage;
use crate::name;

mod error;
mod form;

pub use error::LockError;
use form::{FileForm, ImageForm};

/// Number of the file's form.
const LOCK_VERSION: u32 = 1;
/// Longest lock file, bytes.
const MAX_LOCK_BYTES: u64 = 64 << 20;
const HEAD: &str = "# What the images were when `anchorhold` looked: keep this file with the manifests that name them.\n";

/// Facts of images by name and platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockFile {
    images: BTreeMap<(String, Platform), LockedImage>,
}

/// One image of a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedImage {
    /// What the name stood for: an index or a manifest.
    pub target_digest: Sha256,
    /// The manifest for the platform.
    pub manifest_digest: Sha256,
    /// The image config.
    pub config_digest: Sha256,
    /// The blob of each layer, bottom first.
    pub layer_digests: Vec<Sha256>,
    /// What a pod needs to know of it.
    pub facts: ImageFacts,
}

impl LockFile {
    /// Reads a file; `None` where there is none.
    ///
    /// # Errors
    /// [`LockError`] when it is not a lock file of this version.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let failed = |source| LockError::File { path: path.display().to_string(), source };
        let text = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.len() > MAX_LOCK_BYTES => {
                return Err(LockError::Form { reason: "it is too long".into() });
            }
            Ok(_) => fs::read_to_string(path).map_err(failed)?,
        };
        Self::parse(&text).map(Some)
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`LockError::File`].
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let failed = |source| LockError::File { path: path.display().to_string(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(self.to_text().as_bytes()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// As [`LockFile::read`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let form: FileForm = toml::from_str(text)
            .map_err(|error| LockError::Form { reason: error.message().to_owned() })?;
        let version = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(LockError::Version { what, found, expected }),
        };
        version("version", form.version, LOCK_VERSION)?;
        version("conversion version", form.conversion_version, CONVERSION_VERSION)?;
        let mut lock = Self::default();
        for image in form.image {
            let (key, image) = image.into_locked()?;
            lock.insert(key, image)?;
        }
        Ok(lock)
    }

    /// The text of the file: the same images give the same bytes.
    pub fn to_text(&self) -> String {
        let image = self.images.iter().map(ImageForm::of).collect();
        let (version, conversion_version) = (LOCK_VERSION, CONVERSION_VERSION);
        let form = FileForm { version, conversion_version, image };
        // the form has nothing that TOML cannot hold
        format!("{HEAD}{}", toml::to_string(&form).unwrap_or_default())
    }

    /// Puts an image in, over what was there for its name and platform.
    ///
    /// # Errors
    /// [`LockError::Contradiction`] when another image says something else of a layer.
    pub fn add(&mut self, image: &ResolvedImage, facts: &ImageFacts) -> Result<(), LockError> {
        let key = (image.name().to_owned(), image.platform());
        self.images.remove(&key);
        let locked = LockedImage {
            target_digest: image.target_digest(),
            manifest_digest: image.manifest_digest(),
            config_digest: image.config_digest(),
            layer_digests: image.layers().iter().map(|layer| layer.digest).collect(),
            facts: facts.clone(),
        };
        self.insert(key, locked)
    }

    /// The image of a name.
    ///
    /// # Errors
    /// [`LockError::Missing`]; [`LockError::Stale`] when the name has another digest.
    pub fn image(&self, name: &str, platform: Platform) -> Result<&LockedImage, LockError> {
        let missing = || LockError::Missing { name: name.to_owned(), platform };
        let found = self.images.get(&(name.to_owned(), platform)).ok_or_else(missing)?;
        match name::parse(name).ok().and_then(|reference| reference.digest()) {
            Some(expected) if expected != found.target_digest => {
                let (name, found) = (name.to_owned(), found.target_digest);
                Err(LockError::Stale { name, found, expected })
            }
            _ => Ok(found),
        }
    }

    /// Whether an image that was resolved and read is still the locked one; fine when it is not locked.
    ///
    /// # Errors
    /// [`LockError::Stale`] for another digest, [`LockError::Contradiction`] for other facts.
    pub fn check(&self, image: &ResolvedImage, facts: &ImageFacts) -> Result<(), LockError> {
        let key = (image.name().to_owned(), image.platform());
        let Some(locked) = self.images.get(&key) else { return Ok(()) };
        let (name, found, expected) = (key.0, locked.target_digest, image.target_digest());
        if found != expected {
            return Err(LockError::Stale { name, found, expected });
        }
        match locked.facts == *facts {
            true => Ok(()),
            false => Err(LockError::Contradiction {
                what: format!("image {name:?} has its locked digest, but not its locked facts"),
            }),
        }
    }

    fn insert(&mut self, key: (String, Platform), image: LockedImage) -> Result<(), LockError> {
        let contradiction = |what: String| Err(LockError::Contradiction { what });
        for (other, known) in &self.images {
            for layer in &image.facts.layers {
                let same = known.facts.layers.iter().find(|known| known.diff_id == layer.diff_id);
                if same.is_some_and(|same| same.verity != layer.verity) {
                    return contradiction(format!(
                        "layer {} has two root hashes, in {:?} and in {:?}",
                        layer.diff_id, other.0, key.0
                    ));
                }
            }
        }
        if self.images.contains_key(&key) {
            return contradiction(format!("image {:?} for {} is there twice", key.0, key.1));
        }
        self.images.insert(key, image);
        Ok(())
    }
}

impl LockedImage {
    /// The name to write into a manifest: as written, with the digest.
    pub fn pinned_name(&self, name: &str) -> String {
        name::pinned(name, &self.target_digest)
    }
}

#[cfg(test)]
#[path = "lock/tests.rs"]
mod tests;
