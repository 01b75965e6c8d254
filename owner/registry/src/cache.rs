//! What is known of images and layers already, so that the same question needs no network and no layer bytes again.
//!
//! ```text
//! <dir>/documents/<digest>                          a manifest, index or config, as it was received
//! <dir>/layers/v<record>.<conversion>/<diff id>     root hash and account files of a layer
//! <dir>/accounts/v<record>/<chain>                  accounts of layers whose links lead to other files
//! ```
//!
//! A document is hashed again whenever it is read. A record is derived from a layer's bytes, which are no longer there;
//! its first line is the SHA-256 of the rest, so that a file that was cut, half written or mixed up is made anew. That
//! finds accidents, not the owner's own hand: the folder is as much the owner's as the program that reads it, and who
//! can write there could change either. Files appear under their names whole (by renaming) and equal inputs give equal
//! bytes, so that any number of processes may share a folder without locks.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use ah_convert::{CONVERSION_VERSION, Seen};
use ah_digest::Sha256;
use ah_oci::LayerDescriptor;
use ah_pod::Accounts;
use ah_verity::VerityInfo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::convert::{ConvertedLayer, KeptFiles, LayerConverter, LayerFiles};
use crate::error::{BoxError, RegistryError};

/// Number of the records' form and meaning.
const RECORD_VERSION: u32 = 1;
/// Longest file in the cache, bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A folder of facts; a converter that keeps root hashes and account files instead of images.
#[derive(Debug, Clone)]
pub struct FactsCache {
    documents: PathBuf,
    layers: PathBuf,
    accounts: PathBuf,
}

/// What is kept of a layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerRecord {
    diff_id: Sha256,
    root_hash: Sha256,
    data_blocks: u64,
    salt: Sha256,
    etc: SeenRecord,
    passwd: SeenRecord,
    group: SeenRecord,
}

/// [`Seen`], its bytes as the text that they are read as.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SeenRecord {
    Absent,
    Whiteout,
    Directory { opaque: bool },
    Symlink(String),
    File(String),
    NotTaken,
    Other,
}

impl FactsCache {
    /// Opens a cache; its folders are made when they are missing.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        let made = |name: String| {
            let folder = folder.join(name);
            match fs::create_dir_all(&folder) {
                Ok(()) => Ok(folder),
                Err(source) => {
                    Err(RegistryError::Cache { path: folder.display().to_string(), source })
                }
            }
        };
        Ok(Self {
            documents: made("documents".into())?,
            layers: made(format!("layers/v{RECORD_VERSION}.{CONVERSION_VERSION}"))?,
            accounts: made(format!("accounts/v{RECORD_VERSION}"))?,
        })
    }

    /// The document with a digest, if it is there.
    pub(crate) fn document(&self, digest: &Sha256) -> Option<Vec<u8>> {
        let bytes = read(&self.documents.join(digest.to_string()))?;
        (Sha256::of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a document under its digest.
    pub(crate) fn keep_document(&self, bytes: &[u8]) -> io::Result<()> {
        write(&self.documents, &Sha256::of(bytes).to_string(), bytes)
    }

    /// What is known of a layer.
    pub(crate) fn layer(&self, diff_id: &Sha256) -> Option<ConvertedLayer> {
        let record: LayerRecord = read_record(&self.layers.join(diff_id.to_string()))?;
        if record.diff_id != *diff_id {
            return None;
        }
        let (root_hash, data_blocks) = (record.root_hash, record.data_blocks);
        let verity = VerityInfo { root_hash, data_blocks, salt: *record.salt.as_bytes() };
        let seen = [record.etc.into(), record.passwd.into(), record.group.into()];
        Some(ConvertedLayer {
            verity: verity.checked().ok()?,
            files: LayerFiles::Kept(KeptFiles(seen)),
        })
    }

    fn keep_layer(
        &self,
        diff_id: &Sha256,
        verity: &VerityInfo,
        kept: &KeptFiles,
    ) -> io::Result<()> {
        let [etc, passwd, group] = kept.0.each_ref().map(SeenRecord::from);
        let (root_hash, data_blocks) = (verity.root_hash, verity.data_blocks);
        let (diff_id, salt) = (*diff_id, Sha256::new(verity.salt));
        let record = LayerRecord { diff_id, root_hash, data_blocks, salt, etc, passwd, group };
        write_record(&self.layers, &diff_id.to_string(), &record)
    }

    /// Accounts of layers in this order, if whole images were once read for them.
    pub(crate) fn accounts(&self, layers: &[LayerDescriptor]) -> Option<Accounts> {
        read_record(&self.accounts.join(chain(layers).to_string()))
    }

    pub(crate) fn keep_accounts(
        &self,
        layers: &[LayerDescriptor],
        accounts: &Accounts,
    ) -> io::Result<()> {
        write_record(&self.accounts, &chain(layers).to_string(), accounts)
    }
}

impl LayerConverter for FactsCache {
    fn convert(
        &self,
        layer: &LayerDescriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<ConvertedLayer, BoxError> {
        if let Some(known) = self.layer(&layer.diff_id) {
            return Ok(known);
        }
        let (converted, kept) =
            KeptFiles::while_converting(open()?, layer.media_type, &layer.diff_id)?;
        self.keep_layer(&layer.diff_id, &converted.info, &kept)?;
        Ok(ConvertedLayer { verity: converted.info, files: LayerFiles::Kept(kept) })
    }
}

/// One digest for several layers in their order.
fn chain(layers: &[LayerDescriptor]) -> Sha256 {
    let ids: String = layers.iter().map(|layer| format!("{}\n", layer.diff_id)).collect();
    Sha256::of(ids)
}

impl From<SeenRecord> for Seen {
    fn from(record: SeenRecord) -> Self {
        match record {
            SeenRecord::Absent => Self::Absent,
            SeenRecord::Whiteout => Self::Whiteout,
            SeenRecord::Directory { opaque } => Self::Directory { opaque },
            SeenRecord::Symlink(target) => Self::Symlink(target.into_bytes()),
            SeenRecord::File(text) => Self::File(text.into_bytes()),
            SeenRecord::NotTaken => Self::NotTaken,
            SeenRecord::Other => Self::Other,
        }
    }
}

impl From<&Seen> for SeenRecord {
    fn from(seen: &Seen) -> Self {
        match seen {
            Seen::Absent => Self::Absent,
            Seen::Whiteout => Self::Whiteout,
            Seen::Directory { opaque } => Self::Directory { opaque: *opaque },
            // a target that is no text is left to the whole images
            Seen::Symlink(target) => {
                String::from_utf8(target.clone()).map_or(Self::NotTaken, Self::Symlink)
            }
            // the accounts' reader takes what is no text in the same way
            Seen::File(bytes) => Self::File(String::from_utf8_lossy(bytes).into_owned()),
            Seen::NotTaken => Self::NotTaken,
            Seen::Other => Self::Other,
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = String::from_utf8(read(path)?).ok()?;
    let (check, body) = text.split_once('\n')?;
    (check == Sha256::of(body).to_string()).then(|| serde_json::from_str(body).ok()).flatten()
}

fn write_record(folder: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_string(record)?;
    write(folder, name, format!("{}\n{body}", Sha256::of(&body)).as_bytes())
}

/// A file that is there whole or not at all.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(folder.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> (VerityInfo, KeptFiles) {
        let verity = VerityInfo { root_hash: Sha256::of("root"), data_blocks: 7, salt: [0; 32] };
        let passwd = Seen::File(b"a:x:1:2::/:\n".to_vec());
        let seen = [Seen::Directory { opaque: true }, passwd, Seen::Symlink(b"../g".to_vec())];
        (verity, KeptFiles(seen))
    }

    fn cache() -> (tempfile::TempDir, FactsCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = FactsCache::open(folder.path()).unwrap();
        (folder, cache)
    }

    fn files(layer: ConvertedLayer) -> KeptFiles {
        match layer.files {
            LayerFiles::Kept(kept) => kept,
            LayerFiles::Image(_) => unreachable!("the cache keeps no images"),
        }
    }

    #[test]
    fn a_layer_is_known_again() {
        let (_folder, cache) = cache();
        let ((verity, kept), diff_id) = (kept(), Sha256::of("tar"));
        assert!(cache.layer(&diff_id).is_none());
        cache.keep_layer(&diff_id, &verity, &kept).unwrap();
        let found = cache.layer(&diff_id).unwrap();
        assert_eq!(found.verity, verity);
        assert_eq!(files(found), kept);
    }

    #[test]
    fn attack_records_that_were_cut_changed_or_swapped_are_not_believed() {
        let (_folder, cache) = cache();
        let ((verity, kept), one, two) = (kept(), Sha256::of("one"), Sha256::of("two"));
        let path = |id: &Sha256| cache.layers.join(id.to_string());
        cache.keep_layer(&one, &verity, &kept).unwrap();
        let good = fs::read(path(&one)).unwrap();
        let changes: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes.push(b' '),
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            Vec::clear,
        ];
        for change in changes {
            let mut bytes = good.clone();
            change(&mut bytes);
            fs::write(path(&one), bytes).unwrap();
            assert!(cache.layer(&one).is_none());
        }
        fs::write(path(&one), &good).unwrap();
        assert!(cache.layer(&one).is_some());
        fs::copy(path(&one), path(&two)).unwrap();
        assert!(cache.layer(&two).is_none());
    }

    #[test]
    fn attack_a_document_with_another_digest_is_not_believed() {
        let (_folder, cache) = cache();
        let digest = Sha256::of("document");
        cache.keep_document(b"document").unwrap();
        assert_eq!(cache.document(&digest).unwrap(), b"document");
        fs::write(cache.documents.join(digest.to_string()), "another").unwrap();
        assert!(cache.document(&digest).is_none());
    }
}
