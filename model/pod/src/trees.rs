//! The folder that the node makes for a volume of files, as the Kata runtime copies it into the guest.
//!
//! The kubelet (`AtomicWriter`) writes the files into a folder named after the time, points the link `..data` to it, and one
//! link a name to `..data/<name>`. The Kata runtime (`ShareFile`, without a shared file system) walks that folder and sends one
//! CopyFile for each part of it. A mount with `subPath` is another walk: of the file or folder that the path leads to.

use std::collections::{BTreeMap, BTreeSet};

use ah_agent_api::agent::CopyFileRequest;
use ah_digest::Sha256;

use crate::files::SHARED_DIR;
use crate::requests::RequestError;
use crate::volumes::{FileContent, FileVolume, Unpinned, VolumeFile, VolumeSource};
use crate::{Container, HostFact, HostValues, Pod, VolumeMount, placeholder};

/// Largest file of a volume, bytes: Kubernetes' own limit on a ConfigMap or Secret, and the Kata runtime's on one request.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The link to the present version's folder.
const DATA: &str = "..data";

pub(crate) const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_777;
const SET_GROUP_ID: u32 = 0o2000;
/// What the kubelet adds to files of a volume with `fsGroup` that is mounted read-only (`SetVolumeOwnership`).
const GROUP_READS: u32 = 0o440;
/// Of a token with an owner of its own (kubelet, projected volumes).
const TOKEN_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o750;

/// What is copied in for one mount of a volume of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where the container sees it.
    pub destination: String,
    /// Last part of the destination, part of the name in the shared folder.
    pub base_name: String,
    /// Name of the volume.
    pub volume: String,
    /// Everything in it by path, the top as `""`; the version's folder is `$(volume-version)`.
    pub entries: BTreeMap<String, Entry>,
    /// Group of everything in it, beside 0.
    pub gid: u32,
    /// Files beside those, which the host chooses; the mode with its type.
    pub unpinned: Option<Unpinned>,
}

/// One part of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A symbolic link to this, relative.
    Link(String),
    /// A regular file.
    File {
        /// Type and permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// What it holds.
        content: EntryContent,
    },
}

/// What a file of a tree holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryContent {
    /// Bytes of this digest.
    Digest(Sha256),
    /// A fact of the host, behind this text.
    Host(String, HostFact),
    /// What the host likes; the text says what should be there.
    Free(String),
}

/// The trees of a container, in the order of its mounts.
///
/// # Errors
/// [`RequestError::UnknownSubPath`].
pub fn trees(pod: &Pod, container: &Container) -> Result<Vec<Tree>, RequestError> {
    let mounts = container.mounts.iter();
    mounts.filter_map(|mount| tree(pod, container, mount).transpose()).collect()
}

fn tree(
    pod: &Pod,
    container: &Container,
    mount: &VolumeMount,
) -> Result<Option<Tree>, RequestError> {
    let Some((volume, files)) = file_volume(pod, mount) else { return Ok(None) };
    let paths: BTreeMap<&str, &VolumeFile> =
        files.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let entries = match mount.sub_path.as_deref() {
        None => versioned(pod, &paths),
        Some(sub_path) => {
            part(pod, &paths, sub_path).ok_or_else(|| RequestError::UnknownSubPath {
                container: container.name.clone(),
                volume: volume.into(),
                sub_path: sub_path.into(),
            })?
        }
    };
    Ok(Some(Tree {
        destination: mount.path.clone(),
        base_name: base_name(&mount.path).into(),
        volume: volume.into(),
        entries,
        gid: gid(pod),
        unpinned: files
            .unpinned
            .as_ref()
            .filter(|_| mount.sub_path.is_none())
            .map(|unpinned| Unpinned { mode: file_mode(pod, unpinned.mode), ..unpinned.clone() }),
    }))
}

/// The volume behind a mount, where it is one of files.
pub(crate) fn file_volume<'a>(
    pod: &'a Pod,
    mount: &VolumeMount,
) -> Option<(&'a str, &'a FileVolume)> {
    let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume)?;
    match &volume.source {
        VolumeSource::Files(files) => Some((&volume.name, files)),
        VolumeSource::EmptyDir { .. } => None,
    }
}

/// Last part of a mount's path.
pub(crate) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The whole volume.
fn versioned(pod: &Pod, files: &BTreeMap<&str, &VolumeFile>) -> BTreeMap<String, Entry> {
    let version = placeholder::VOLUME_VERSION;
    let mut entries = BTreeMap::from([
        (String::new(), Entry::Folder),
        (version.to_owned(), Entry::Folder),
        (DATA.to_owned(), Entry::Link(version.into())),
    ]);
    for (path, file) in files {
        for folder in folders_above(path) {
            entries.insert(format!("{version}/{folder}"), Entry::Folder);
        }
        entries.insert(format!("{version}/{path}"), entry(pod, file));
        let top = path.split('/').next().unwrap_or_default();
        entries.insert(top.to_owned(), Entry::Link(format!("{DATA}/{top}")));
    }
    entries
}

/// The file or the folder at `sub_path`.
fn part(
    pod: &Pod,
    files: &BTreeMap<&str, &VolumeFile>,
    sub_path: &str,
) -> Option<BTreeMap<String, Entry>> {
    if let Some(file) = files.get(sub_path) {
        return Some(BTreeMap::from([(String::new(), entry(pod, file))]));
    }
    let below = files.iter().filter_map(|(path, file)| {
        let rest = path.strip_prefix(sub_path)?.strip_prefix('/')?;
        Some((rest, file))
    });
    let mut entries = BTreeMap::new();
    for (rest, file) in below {
        for folder in folders_above(rest) {
            entries.insert(folder.to_owned(), Entry::Folder);
        }
        entries.insert(rest.to_owned(), entry(pod, file));
        entries.insert(String::new(), Entry::Folder);
    }
    (!entries.is_empty()).then_some(entries)
}

/// `a/b/c`: `a`, `a/b`.
fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(end, _)| path.get(..end))
}

fn gid(pod: &Pod) -> u32 {
    pod.security.fs_group.map_or(0, |group| group.gid)
}

fn entry(pod: &Pod, file: &VolumeFile) -> Entry {
    let with_group = pod.security.fs_group.is_some();
    let owner = match file.content {
        FileContent::Token => pod.token_user(),
        _ => None,
    };
    let is_token = file.content == FileContent::Token;
    let mode = if is_token && (with_group || owner.is_some()) { TOKEN_MODE } else { file.mode };
    let content = match &file.content {
        FileContent::Fixed(bytes) => EntryContent::Digest(Sha256::of(&bytes.0)),
        FileContent::Host(fact) => EntryContent::Host(String::new(), *fact),
        FileContent::Behind { before, fact } => EntryContent::Host(before.clone(), *fact),
        FileContent::Free(what) => EntryContent::Free(what.clone()),
        FileContent::Token => EntryContent::Free("a token of the service account".into()),
    };
    Entry::File { mode: file_mode(pod, mode), uid: owner.unwrap_or(0), content }
}

/// Type and permissions of a volume's file on the node.
pub(crate) fn file_mode(pod: &Pod, mode: u32) -> u32 {
    let group = if pod.security.fs_group.is_some() { GROUP_READS } else { 0 };
    REGULAR | mode | group
}

/// The requests for a container's volumes.
pub(crate) fn copies(
    pod: &Pod,
    container: &Container,
    container_id: &str,
    host: &HostValues,
) -> Result<Vec<CopyFileRequest>, RequestError> {
    let mut requests = Vec::new();
    for tree in trees(pod, container)? {
        let top = tree_path(&tree.destination, container_id, host)?;
        let volume = pod.volumes.iter().find(|volume| volume.name == tree.volume);
        let files = volume.and_then(|volume| match &volume.source {
            VolumeSource::Files(files) => Some(files.files.as_slice()),
            VolumeSource::EmptyDir { .. } => None,
        });
        let mut contents = contents(files.unwrap_or_default(), &tree, host);
        for (path, entry) in &tree.entries {
            let data = contents.remove(path).unwrap_or_default();
            requests.push(copy(&tree, &top, path, entry, data, host));
        }
    }
    Ok(requests)
}

/// Bytes of a tree's files by path. They are found by what they hold, since a `subPath` changes the path.
fn contents(files: &[VolumeFile], tree: &Tree, host: &HostValues) -> BTreeMap<String, Vec<u8>> {
    let fixed: BTreeMap<Sha256, &[u8]> = files
        .iter()
        .filter_map(|file| match &file.content {
            FileContent::Fixed(bytes) => Some((Sha256::of(&bytes.0), bytes.0.as_slice())),
            _ => None,
        })
        .collect();
    let bytes = |content: &EntryContent| match content {
        EntryContent::Digest(digest) => fixed.get(digest).map(|bytes| bytes.to_vec()),
        EntryContent::Host(before, fact) => {
            Some(format!("{before}{}", host.fact(*fact)).into_bytes())
        }
        // a host without a cluster has nothing to put here
        EntryContent::Free(_) => None,
    };
    let files = tree.entries.iter().filter_map(|(path, entry)| match entry {
        Entry::File { content, .. } => Some((path.clone(), bytes(content)?)),
        _ => None,
    });
    files.collect()
}

fn copy(
    tree: &Tree,
    top: &str,
    path: &str,
    entry: &Entry,
    data: Vec<u8>,
    host: &HostValues,
) -> CopyFileRequest {
    let versioned = |text: &str| text.replace(placeholder::VOLUME_VERSION, &host.volume_version);
    let full = if path.is_empty() { top.to_owned() } else { format!("{top}/{}", versioned(path)) };
    let set_group = if tree.gid == 0 { 0 } else { SET_GROUP_ID };
    let (mode, uid, data) = match entry {
        Entry::Folder if path.is_empty() => (FOLDER | set_group | 0o777, 0, Vec::new()),
        Entry::Folder => (FOLDER | set_group | 0o755, 0, Vec::new()),
        Entry::Link(target) => (LINK, 0, versioned(target).into_bytes()),
        Entry::File { mode, uid, .. } => (*mode, *uid, data),
    };
    let is_file = matches!(entry, Entry::File { .. });
    let size = if is_file { i64::try_from(data.len()).unwrap_or(i64::MAX) } else { 0 };
    CopyFileRequest {
        path: full,
        file_size: size,
        file_mode: mode,
        dir_mode: DIR_MODE,
        uid: i32::try_from(uid).unwrap_or(i32::MAX),
        gid: i32::try_from(tree.gid).unwrap_or(i32::MAX),
        data,
        ..Default::default()
    }
}

/// Where the tree of a mount lies in the guest: `<container>-<16 hex>-<base name>`, as [`crate::mounts::copied_path`].
pub(crate) fn tree_path(
    destination: &str,
    container_id: &str,
    host: &HostValues,
) -> Result<String, RequestError> {
    let key = HostValues::file_key(container_id, destination);
    let id = host.file_ids.get(&key).ok_or(RequestError::NoFileId { file: key })?;
    Ok(format!("{SHARED_DIR}/{container_id}-{id}-{}", base_name(destination)))
}

/// Two files where one's path is a folder of the other's cannot both be there.
pub fn is_file_and_folder(files: &[VolumeFile]) -> Option<&str> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut above = files.iter().flat_map(|file| folders_above(&file.path));
    above.find(|folder| paths.contains(folder))
}

#[cfg(test)]
#[path = "trees_tests.rs"]
mod tests;
