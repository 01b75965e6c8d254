use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ah_digest::Sha256;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::snapshot::{Kind, Moment, Snapshot, VERSION};
use crate::usage::{self, Usage};

/// The snapshots: their folders and what is known about them.
///
/// Each snapshot has one small file, written whole and renamed into place, so that a process that is killed leaves
/// either the old or the new state of a snapshot. A folder without file is of a snapshot that was not finished or is
/// removed: it is deleted when the store is opened, and by [`Store::cleanup`].
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    state: Mutex<State>,
    /// Held while the store is open.
    _lock: File,
}

#[derive(Debug, Default)]
struct State {
    by_name: HashMap<String, Snapshot>,
    /// Snapshots that have a folder and no file yet.
    drafts: HashSet<u64>,
    next_id: u64,
}

/// Why an operation on snapshots failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the folder.
    #[error("{root} is in use by another anchorhold-snapshotter")]
    InUse {
        /// The folder.
        root: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path} not accessible")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no such snapshot.
    #[error("snapshot {name:?} does not exist")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// There is such a snapshot already.
    #[error("snapshot {name:?} exists already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// The snapshot is of another kind than the operation needs.
    #[error("snapshot {name:?} is {found}, expected {expected}")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        found: &'static str,
        /// The kind that is needed.
        expected: &'static str,
    },
    /// The snapshot has others on top of it.
    #[error("snapshot {name:?} has others on top of it, as {child:?}")]
    HasChildren {
        /// Its name.
        name: String,
        /// One of those.
        child: String,
    },
    /// The field of a snapshot cannot be changed.
    #[error("field {field:?} of a snapshot cannot be changed, only labels can")]
    Field {
        /// The field.
        field: String,
    },
}

type Result<T> = std::result::Result<T, StoreError>;

/// A snapshot that is being made. Dropped, its folder is deleted.
pub(crate) struct Draft {
    store: Arc<Store>,
    pub(crate) snapshot: Snapshot,
    /// Nearest first.
    pub(crate) ancestors: Vec<Snapshot>,
    kept: bool,
}

impl Store {
    /// Opens the store in a folder, which is made when it is missing. What was left half made is deleted.
    ///
    /// # Errors
    /// [`StoreError::InUse`], or when the folder cannot be read or written. A snapshot whose file is not readable or
    /// whose folder is gone is left out, with a line in the log, so that the others are served.
    pub fn open(root: &Path) -> Result<Self> {
        let folder = root.join("snapshots");
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let lock = lock(root)?;
        let mut state = State { next_id: 1, ..State::default() };
        for (id, path) in files(&folder)? {
            state.next_id = state.next_id.max(id + 1);
            match read(&folder, id, &path) {
                Ok(snapshot) => {
                    state.by_name.insert(snapshot.name.clone(), snapshot);
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "snapshot is left out");
                    let kept = path.with_extension("broken");
                    fs::rename(&path, &kept).map_err(at(&path))?;
                }
            }
        }
        let store = Self { folder, state: Mutex::new(state), _lock: lock };
        store.cleanup()?;
        Ok(store)
    }

    /// Where the snapshots' folders are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn folder_of(&self, snapshot: &Snapshot) -> PathBuf {
        self.folder.join(snapshot.id.to_string())
    }

    pub(crate) fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.state().snapshot(name).cloned()
    }

    /// The snapshot and its ancestors, nearest first.
    pub(crate) fn lineage(&self, name: &str) -> Result<Vec<Snapshot>> {
        self.state().lineage(Some(name))
    }

    pub(crate) fn list(&self) -> Vec<Snapshot> {
        let mut all: Vec<Snapshot> = self.state().by_name.values().cloned().collect();
        all.sort_unstable_by_key(|snapshot| snapshot.id);
        all
    }

    /// Begins a snapshot: makes its folder.
    pub(crate) fn begin(
        self: &Arc<Self>,
        name: &str,
        parent: Option<&str>,
        kind: Kind,
        labels: BTreeMap<String, String>,
    ) -> Result<Draft> {
        let (id, ancestors) = {
            let mut state = self.state();
            state.absent(name)?;
            let ancestors = state.lineage(parent)?;
            if let Some(parent) = ancestors.first() {
                parent.expect(Kind::Committed)?;
            }
            let id = state.next_id;
            state.next_id += 1;
            state.drafts.insert(id);
            (id, ancestors)
        };
        let now = Moment::now();
        let snapshot = Snapshot {
            version: VERSION,
            id,
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            kind,
            labels,
            created: now,
            updated: now,
            usage: Usage::default(),
            layer: None,
        };
        let draft = Draft { store: Arc::clone(self), snapshot, ancestors, kept: false };
        draft.make_folder()?;
        Ok(draft)
    }

    /// Turns an active snapshot into a committed one.
    pub(crate) fn commit(
        &self,
        key: &str,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Snapshot> {
        let active = self.snapshot(key)?;
        active.expect(Kind::Active)?;
        let usage = usage::of_folder(&self.folder_of(&active).join("fs"));
        let mut state = self.state();
        state.absent(name)?;
        let mut snapshot = state.snapshot(key)?.clone();
        snapshot.expect(Kind::Active)?;
        snapshot.name = name.to_owned();
        snapshot.kind = Kind::Committed;
        snapshot.usage = usage;
        snapshot.labels.extend(labels);
        snapshot.updated = Moment::now();
        self.write(&snapshot)?;
        state.by_name.remove(key);
        state.by_name.insert(name.to_owned(), snapshot.clone());
        Ok(snapshot)
    }

    /// Writes down which layer a committed snapshot is.
    pub(crate) fn set_layer(&self, name: &str, diff_id: Sha256) -> Result<()> {
        self.change(name, |snapshot| snapshot.layer = Some(diff_id)).map(|_| ())
    }

    /// Changes labels: all of them, or those that the paths name (`labels.NAME`); an empty value removes a label.
    pub(crate) fn update(
        &self,
        name: &str,
        labels: &HashMap<String, String>,
        paths: &[String],
    ) -> Result<Snapshot> {
        if let Some(other) = paths.iter().find(|p| *p != "labels" && !p.starts_with("labels.")) {
            return Err(StoreError::Field { field: other.clone() });
        }
        self.change(name, |snapshot| {
            snapshot.updated = Moment::now();
            if paths.is_empty() || paths.iter().any(|path| path == "labels") {
                snapshot.labels = labels.clone().into_iter().collect();
                return;
            }
            for label in paths.iter().filter_map(|path| path.strip_prefix("labels.")) {
                match labels.get(label).filter(|value| !value.is_empty()) {
                    Some(value) => snapshot.labels.insert(label.to_owned(), value.clone()),
                    None => snapshot.labels.remove(label),
                };
            }
        })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Snapshot)) -> Result<Snapshot> {
        let mut state = self.state();
        let mut snapshot = state.snapshot(name)?.clone();
        change(&mut snapshot);
        self.write(&snapshot)?;
        state.by_name.insert(name.to_owned(), snapshot.clone());
        Ok(snapshot)
    }

    /// Removes a snapshot that has none on top of it.
    pub(crate) fn remove(&self, name: &str) -> Result<Snapshot> {
        let snapshot = {
            let mut state = self.state();
            state.snapshot(name)?;
            let is_child = |other: &&Snapshot| other.parent.as_deref() == Some(name);
            if let Some(child) = state.by_name.values().find(is_child) {
                let (name, child) = (name.to_owned(), child.name.clone());
                return Err(StoreError::HasChildren { name, child });
            }
            let path = self.file(state.snapshot(name)?.id);
            fs::remove_file(&path).map_err(at(&path))?;
            self.sync()?;
            state.by_name.remove(name).ok_or(StoreError::NotFound { name: name.to_owned() })?
        };
        delete(&self.folder_of(&snapshot))?;
        Ok(snapshot)
    }

    /// The layers that committed snapshots are.
    pub(crate) fn layers(&self) -> HashSet<Sha256> {
        self.state().by_name.values().filter_map(|snapshot| snapshot.layer).collect()
    }

    /// Deletes folders that no snapshot has, and files that were not finished.
    pub(crate) fn cleanup(&self) -> Result<()> {
        let state = self.state();
        let ids = state.by_name.values().map(|snapshot| snapshot.id);
        let known: HashSet<u64> = ids.chain(state.drafts.iter().copied()).collect();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let path = entry.map_err(at(&self.folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let known = stem.parse().is_ok_and(|id| known.contains(&id));
            if !known && path.extension().is_none_or(|extension| extension != "broken") {
                delete(&path)?;
            }
        }
        Ok(())
    }

    /// Writes a snapshot's file whole.
    fn write(&self, snapshot: &Snapshot) -> Result<()> {
        let path = self.file(snapshot.id);
        let write = || {
            let mut file = NamedTempFile::new_in(&self.folder)?;
            file.write_all(&serde_json::to_vec(snapshot)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(at(&path))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(at(&self.folder))
    }

    fn file(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Every change of the state is made by one insertion or removal after the file was written: a panic in between
    /// leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn snapshot(&self, name: &str) -> Result<&Snapshot> {
        self.by_name.get(name).ok_or_else(|| StoreError::NotFound { name: name.to_owned() })
    }

    fn absent(&self, name: &str) -> Result<()> {
        match self.by_name.contains_key(name) {
            true => Err(StoreError::Exists { name: name.to_owned() }),
            false => Ok(()),
        }
    }

    fn lineage<'a>(&'a self, mut name: Option<&'a str>) -> Result<Vec<Snapshot>> {
        let mut lineage: Vec<Snapshot> = Vec::new();
        while let Some(next) = name {
            let snapshot = self.snapshot(next)?;
            lineage.push(snapshot.clone());
            name = snapshot.parent.as_deref();
            if lineage.len() > self.by_name.len() {
                // Files that somebody else wrote: a snapshot below itself.
                return Err(StoreError::NotFound { name: next.to_owned() });
            }
        }
        Ok(lineage)
    }
}

impl Snapshot {
    fn expect(&self, expected: Kind) -> Result<()> {
        if self.kind == expected {
            return Ok(());
        }
        let (found, expected) = (self.kind.name(), expected.name());
        Err(StoreError::Kind { name: self.name.clone(), found, expected })
    }
}

impl Draft {
    /// Gives the snapshot its file. From then on it is there.
    pub(crate) fn keep(mut self) -> Result<(Snapshot, Vec<Snapshot>)> {
        let mut state = self.store.state();
        state.absent(&self.snapshot.name)?;
        // Its parent may have been removed since.
        state.lineage(self.snapshot.parent.as_deref())?;
        self.store.write(&self.snapshot)?;
        state.by_name.insert(self.snapshot.name.clone(), self.snapshot.clone());
        state.drafts.remove(&self.snapshot.id);
        drop(state);
        self.kept = true;
        Ok((self.snapshot.clone(), std::mem::take(&mut self.ancestors)))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.store.folder_of(&self.snapshot)
    }

    fn make_folder(&self) -> Result<()> {
        let folder = self.folder();
        let fs_folder = folder.join("fs");
        let make = || {
            fs::create_dir(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            fs::create_dir(&fs_folder)?;
            fs::set_permissions(&fs_folder, fs::Permissions::from_mode(0o755))?;
            if let Some(parent) = self.ancestors.first() {
                let below = fs::metadata(self.store.folder_of(parent).join("fs"))?;
                chown(&fs_folder, Some(below.uid()), Some(below.gid()))?;
            }
            if self.snapshot.kind == Kind::Active {
                fs::create_dir(folder.join("work"))?;
            }
            Ok(())
        };
        make().map_err(at(&folder))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            if let Err(error) = delete(&self.folder()) {
                tracing::warn!(%error, "folder of an unfinished snapshot is left for the next cleanup");
            }
            self.store.state().drafts.remove(&self.snapshot.id);
        }
    }
}

/// The lock ends with its file, also when this process is killed.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { root: root.to_owned() }),
        Err(error) => Err(at(&path)(error.into())),
    }
}

/// The snapshots' files, with the ids in their names.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|s| s.parse().ok());
        if let (Some(id), Some("json")) = (id, path.extension().and_then(|e| e.to_str())) {
            files.push((id, path));
        }
    }
    Ok(files)
}

fn read(folder: &Path, id: u64, path: &Path) -> io::Result<Snapshot> {
    let snapshot: Snapshot = serde_json::from_slice(&fs::read(path)?)?;
    if snapshot.version != VERSION || snapshot.id != id {
        let (version, found) = (snapshot.version, snapshot.id);
        let text = format!("version {version} and id {found}, expected {VERSION} and {id}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    fs::metadata(folder.join(id.to_string()).join("fs"))?;
    Ok(snapshot)
}

fn delete(path: &Path) -> Result<()> {
    let deleted = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |source| StoreError::File { path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
