//! Volumes of files in the policy's data: each tree once, and which mount has which.

use ah_pod::trees::{Entry, EntryContent, Tree, trees};
use ah_pod::{HostValues, Pod, Unpinned};
use serde_json::Value;

use crate::data::{EntryData, TreeData, UnpinnedData, VolumeData};
use crate::generate::GenerateError;
use crate::template::kind;

/// Adds the trees of the container at `index` to those of the pod, and finds the mounts in its request.
pub(crate) fn volumes(
    pod: &Pod,
    index: usize,
    request: &Value,
    all: &mut Vec<TreeData>,
) -> Result<Vec<VolumeData>, GenerateError> {
    let Some(container) = pod.containers.get(index) else { return Ok(Vec::new()) };
    let host = HostValues::placeholders(pod);
    let mounts = request.pointer("/OCI/Mounts").and_then(Value::as_array);
    let mounts = mounts.map(Vec::as_slice).unwrap_or_default();
    let mut volumes = Vec::new();
    for tree in trees(pod, container)? {
        let is_here = |mount: &Value| {
            mount.get("destination").and_then(Value::as_str) == Some(&tree.destination)
        };
        // Mounts of one destination are refused before, so the first is the only one.
        if let Some(mount) = mounts.iter().position(is_here) {
            volumes.push(VolumeData { mount, tree: add(all, &tree, &host) });
        }
    }
    Ok(volumes)
}

fn add(all: &mut Vec<TreeData>, tree: &Tree, host: &HostValues) -> usize {
    let made = data(tree, host);
    let same = |known: &TreeData| {
        (&known.entries, known.gid, &known.unpinned) == (&made.entries, made.gid, &made.unpinned)
    };
    match all.iter().position(same) {
        Some(index) => {
            if let Some(known) = all.get_mut(index).filter(|t| !t.names.contains(&tree.base_name)) {
                known.names.push(tree.base_name.clone());
            }
            index
        }
        None => {
            all.push(made);
            all.len().saturating_sub(1)
        }
    }
}

fn data(tree: &Tree, host: &HostValues) -> TreeData {
    let entries = tree.entries.iter();
    TreeData {
        names: vec![tree.base_name.clone()],
        gid: tree.gid,
        entries: entries.map(|(path, entry)| (path.clone(), entry_data(entry, host))).collect(),
        unpinned: tree.unpinned.as_ref().map(|Unpinned { objects, mode }| UnpinnedData {
            objects: objects.clone(),
            mode: *mode,
        }),
    }
}

fn entry_data(entry: &Entry, host: &HostValues) -> EntryData {
    match entry {
        Entry::Folder => EntryData::Folder { folder: true },
        Entry::Link(target) => EntryData::Link { link: target.clone() },
        Entry::File { mode, uid, content } => {
            let (mode, uid) = (*mode, *uid);
            match content {
                EntryContent::Digest(digest) => {
                    EntryData::Pinned { mode, uid, sha256: digest.to_string() }
                }
                EntryContent::Host(before, fact) => {
                    let (is, before) = (host.fact(*fact).to_owned(), before.clone());
                    EntryData::Fact { mode, uid, kind: kind(&is).to_owned(), is, before }
                }
                EntryContent::Free(what) => EntryData::Free { mode, uid, free: what.clone() },
            }
        }
    }
}
