//! A lock file: what images were when their owner looked, so that a policy can be made again without registry, layers
//! or cache, and comes out the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use ah_convert::CONVERSION_VERSION;
use ah_digest::Sha256;
use ah_oci::Platform;
use ah_pod::{Accounts, GroupEntry, ImageFacts, Layer, PasswdEntry};
use ah_verity::{VerityInfo, ZERO_SALT};
use serde::{Deserialize, Serialize};

use crate::images::ResolvedImage;
use crate::{facts, name};

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

/// Why a lock file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The file could not be read or written.
    #[error("lock file {path:?} is not accessible")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Not a lock file.
    #[error("lock file is not valid: {reason}")]
    Form {
        /// The parser's words.
        reason: String,
    },
    /// Made by a program whose root hashes or form are others.
    #[error("lock file has {what} {found}, expected {expected}")]
    Version {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What this program writes.
        expected: u32,
    },
    /// An image that is not in it.
    #[error("lock file has no image {name:?} for {platform}")]
    Missing {
        /// The name.
        name: String,
        /// The platform.
        platform: Platform,
    },
    /// The manifest names another digest than the file.
    #[error("lock file is stale: image {name:?} is locked to {found}, expected {expected}")]
    Stale {
        /// The name.
        name: String,
        /// The digest in the file.
        found: Sha256,
        /// The digest in the name, or that the registry has now.
        expected: Sha256,
    },
    /// Two entries, or parts of one, that cannot both be true.
    #[error("lock file contradicts itself: {what}")]
    Contradiction {
        /// What does not fit.
        what: String,
    },
}

impl LockError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::Missing { .. } => {
                Some("generate once with --lock and without --offline, which adds what is missing")
            }
            _ => Some(
                "remove the file or the entry, and generate once with --lock and without --offline",
            ),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    version: u32,
    conversion_version: u32,
    #[serde(default)]
    image: Vec<ImageForm>,
}

/// One image. Lists of tables come last, as TOML wants them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageForm {
    name: String,
    platform: String,
    reference: String,
    target_digest: Sha256,
    manifest_digest: Sha256,
    config_digest: Sha256,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    user: String,
    volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    /// Each `name:uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passwd: Option<Vec<String>>,
    /// Each `name:gid:member,member`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Vec<String>>,
    #[serde(default)]
    layer: Vec<LayerForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerForm {
    digest: Sha256,
    diff_id: Sha256,
    root_hash: Sha256,
    data_blocks: u64,
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

impl ImageForm {
    fn of(((name, platform), image): (&(String, Platform), &LockedImage)) -> Self {
        let facts = &image.facts;
        let passwd = |entry: &PasswdEntry| format!("{}:{}:{}", entry.name, entry.uid, entry.gid);
        let group = |entry: &GroupEntry| {
            format!("{}:{}:{}", entry.name, entry.gid, entry.members.join(","))
        };
        let layer = |(layer, digest): (&Layer, &Sha256)| LayerForm {
            digest: *digest,
            diff_id: layer.diff_id,
            root_hash: layer.verity.root_hash,
            data_blocks: layer.verity.data_blocks,
        };
        Self {
            name: name.clone(),
            platform: platform.to_string(),
            reference: facts.reference.clone(),
            target_digest: image.target_digest,
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            entrypoint: facts.entrypoint.clone(),
            cmd: facts.cmd.clone(),
            env: facts.env.clone(),
            working_dir: facts.working_dir.clone(),
            user: facts.user.clone(),
            volumes: facts.volumes.clone(),
            stop_signal: facts.stop_signal.clone(),
            passwd: facts.accounts.passwd.as_ref().map(|list| list.iter().map(passwd).collect()),
            group: facts.accounts.group.as_ref().map(|list| list.iter().map(group).collect()),
            layer: facts.layers.iter().zip(&image.layer_digests).map(layer).collect(),
        }
    }

    fn into_locked(self) -> Result<((String, Platform), LockedImage), LockError> {
        let wrong = |reason: String| LockError::Form { reason };
        let platform: Platform = self.platform.parse().map_err(|e| wrong(format!("{e}")))?;
        let reference = name::parse(&self.name).map_err(|error| wrong(error.to_string()))?;
        let expected = name::canonical(&reference, &self.target_digest);
        if self.reference != expected {
            let what = format!("reference {:?}, expected {expected:?}", self.reference);
            return Err(LockError::Contradiction { what });
        }
        let layer = |form: &LayerForm| {
            let (root_hash, data_blocks) = (form.root_hash, form.data_blocks);
            let verity = VerityInfo { root_hash, data_blocks, salt: ZERO_SALT };
            let verity = verity.checked().map_err(|error| wrong(error.to_string()))?;
            Ok(Layer { diff_id: form.diff_id, verity })
        };
        // the numbers were read as containerd reads them, so that writing and reading them again changes nothing
        let accounts = Accounts {
            passwd: self.passwd.map(|list| list.iter().map(|line| passwd_entry(line)).collect()),
            group: self.group.map(|list| list.iter().map(|line| group_entry(line)).collect()),
        };
        let facts = ImageFacts {
            reference: self.reference,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: self.env,
            working_dir: self.working_dir,
            user: self.user,
            volumes: self.volumes,
            stop_signal: self.stop_signal,
            accounts,
            layers: self.layer.iter().map(layer).collect::<Result<_, LockError>>()?,
        };
        facts::check(&self.name, &facts).map_err(|error| wrong(error.to_string()))?;
        let locked = LockedImage {
            target_digest: self.target_digest,
            manifest_digest: self.manifest_digest,
            config_digest: self.config_digest,
            layer_digests: self.layer.iter().map(|layer| layer.digest).collect(),
            facts,
        };
        Ok(((self.name, platform), locked))
    }
}

fn number(field: Option<&str>) -> i64 {
    field.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn passwd_entry(line: &str) -> PasswdEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    PasswdEntry { name, uid: number(fields.next()), gid: number(fields.next()) }
}

fn group_entry(line: &str) -> GroupEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    let gid = number(fields.next());
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').filter(|_| !members.is_empty()).map(str::to_owned).collect();
    GroupEntry { name, gid, members }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(name: &str, root: &str) -> ((String, Platform), LockedImage) {
        let verity = VerityInfo { root_hash: Sha256::of(root), data_blocks: 7, salt: ZERO_SALT };
        let target_digest = Sha256::of("target");
        let facts = ImageFacts {
            reference: name::canonical(&name::parse(name).unwrap(), &target_digest),
            entrypoint: vec!["/bin/\"app\"\n".into()],
            cmd: vec![],
            env: vec!["A=ä=b".into()],
            working_dir: "/srv".into(),
            user: "www".into(),
            volumes: vec!["/data".into()],
            stop_signal: Some("SIGINT".into()),
            accounts: Accounts::parse(
                Some("root:x:0:0::/:\nbig:x:4294967296:-1::/:\n:x:1:1\n"),
                Some("web:x:40:www,alice\nnone:x:3:\n"),
            ),
            layers: vec![Layer { diff_id: Sha256::of("tar"), verity }],
        };
        let image = LockedImage {
            target_digest,
            manifest_digest: Sha256::of("manifest"),
            config_digest: Sha256::of("config"),
            layer_digests: vec![Sha256::of("blob")],
            facts,
        };
        ((name.to_owned(), Platform::LinuxAmd64), image)
    }

    fn lock() -> LockFile {
        let mut lock = LockFile::default();
        for name in ["web:1", "app:1"] {
            let (key, image) = locked(name, "root");
            lock.insert(key, image).unwrap();
        }
        lock
    }

    #[test]
    fn a_lock_comes_back_as_it_was_and_sorted() {
        let text = lock().to_text();
        assert_eq!(LockFile::parse(&text).unwrap(), lock());
        assert_eq!(LockFile::parse(&text).unwrap().to_text(), text);
        assert!(text.find("app:1").unwrap() < text.find("web:1").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.lock");
        assert!(LockFile::read(&path).unwrap().is_none());
        lock().write(&path).unwrap();
        assert_eq!(LockFile::read(&path).unwrap(), Some(lock()));
    }

    #[test]
    fn a_name_must_be_there_and_of_its_locked_digest() {
        let mut lock = lock();
        let platform = Platform::LinuxAmd64;
        assert_eq!(lock.image("app:1", platform).unwrap(), &locked("app:1", "root").1);
        assert!(matches!(lock.image("app:2", platform), Err(LockError::Missing { .. })));
        let arm = lock.image("app:1", Platform::LinuxArm64);
        assert!(matches!(arm, Err(LockError::Missing { .. })));
        let pinned = format!("app@{}", Sha256::of("other").to_oci());
        let (mut key, image) = locked("app:1", "root");
        key.0.clone_from(&pinned);
        lock.insert(key, image).unwrap();
        assert!(matches!(lock.image(&pinned, platform), Err(LockError::Stale { .. })));
    }

    #[test]
    fn attack_entries_that_contradict_each_other_are_refused() {
        let (key, image) = locked("third:1", "another root");
        assert!(matches!(lock().insert(key, image), Err(LockError::Contradiction { .. })));
        let text = lock().to_text();
        let twice = text.replace("app:1", "web:1").replace("library/app@", "library/web@");
        assert!(matches!(LockFile::parse(&twice), Err(LockError::Contradiction { .. })));
        let elsewhere = text.replacen("library/app@", "evil/app@", 1);
        assert!(matches!(LockFile::parse(&elsewhere), Err(LockError::Contradiction { .. })));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let text = lock().to_text();
        let other = text.replacen("version = 1", "version = 2", 1);
        assert!(matches!(LockFile::parse(&other), Err(LockError::Version { what: "version", .. })));
        let other = text.replacen("conversion_version = ", "conversion_version = 9", 1);
        assert!(matches!(LockFile::parse(&other), Err(LockError::Version { .. })));
        for change in ["colour = 1\n", "[[image]]\n"] {
            assert!(matches!(
                LockFile::parse(&(text.clone() + change)),
                Err(LockError::Form { .. })
            ));
        }
        let short = text.replacen("root_hash = \"", "root_hash = \"0", 1);
        assert!(matches!(LockFile::parse(&short), Err(LockError::Form { .. })));
    }
}
