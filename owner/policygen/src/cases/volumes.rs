//! What an honest host copies in for volumes of files, as far as a policy alone says it.

use std::collections::{BTreeMap, BTreeSet};

use ah_digest::Sha256;
use ah_pod::placeholder::VOLUME_VERSION;
use serde_json::{Value, json};

use crate::data::{ContainerData, EntryData, PolicyData, Read, TreeData};
use crate::honest::Values;
use crate::show::text;

/// Any name of the kubelet's form does.
const VERSION: &str = "..1970_01_01_00_00_00.1";
/// Modes as the Kata runtime sends them (`ah_pod::trees`).
const FOLDER: u32 = 0o040_755;
const TOP: u32 = 0o040_777;
const LINK: u32 = 0o120_777;
const SET_GROUP_ID: u32 = 0o2000;
const DIR_MODE: u32 = 0o750;

/// The copies for a container's volumes; `None` where the policy has a digest of contents that it does not have.
pub(super) fn copies(
    data: &PolicyData,
    container: &ContainerData,
    create: &Value,
    values: &Values,
) -> Option<Vec<Value>> {
    let mut tops = BTreeSet::new();
    let mut all = Vec::new();
    for volume in &container.volumes {
        let tree = data.trees.get(volume.tree)?;
        let source = create.pointer(&format!("/OCI/Mounts/{}/source", volume.mount));
        let top = text(source);
        let namespace = create.pointer("/OCI/Annotations/io.kubernetes.cri.sandbox-namespace");
        for (path, entry) in &tree.entries {
            let contents = contents(entry, &text(namespace), values)?;
            all.push(copy(tree, &top, path, entry, contents));
        }
        // a stand-in for the host's digits is the same for all, so equal base names would meet
        if !tops.insert(top) {
            return None;
        }
    }
    Some(all)
}

/// What a file holds; nothing for what is none, and for what the host may choose.
fn contents(entry: &EntryData, namespace: &str, values: &Values) -> Option<String> {
    match entry {
        EntryData::Pinned { sha256, .. } => {
            let is_namespace = Sha256::of(namespace).to_string() == *sha256;
            is_namespace.then(|| namespace.to_owned())
        }
        EntryData::Fact { is, kind, before, .. } => {
            let read = Read {
                kind: kind.clone(),
                path: Vec::new(),
                env: None,
                fact: true,
                skip: 0,
                tail: 0,
                within: None,
                example: None,
            };
            let reads = BTreeMap::from([(is.clone(), read)]);
            let whole = Value::from(format!("{before}{is}"));
            Some(text(Some(&values.fill(&whole, &reads, ""))))
        }
        EntryData::Folder { .. } | EntryData::Link { .. } | EntryData::Free { .. } => {
            Some(String::new())
        }
    }
}

fn copy(tree: &TreeData, top: &str, path: &str, entry: &EntryData, contents: String) -> Value {
    let versioned = |text: &str| text.replace(VOLUME_VERSION, VERSION);
    let full = if path.is_empty() { top.to_owned() } else { format!("{top}/{}", versioned(path)) };
    let set_group = if tree.gid == 0 { 0 } else { SET_GROUP_ID };
    let (file_type, mode, uid) = match entry {
        EntryData::Folder { .. } if path.is_empty() => ("Directory", TOP | set_group, 0),
        EntryData::Folder { .. } => ("Directory", FOLDER | set_group, 0),
        EntryData::Link { .. } => ("Symlink", LINK, 0),
        EntryData::Pinned { mode, uid, .. }
        | EntryData::Fact { mode, uid, .. }
        | EntryData::Free { mode, uid, .. } => ("Regular", *mode, *uid),
    };
    let mut request = json!({ "path": full, "file_type": file_type, "file_mode": mode, "dir_mode": DIR_MODE,
        "uid": uid, "gid": tree.gid, "file_size": contents.len() });
    match entry {
        EntryData::Link { link } => request["symlink_target"] = versioned(link).into(),
        EntryData::Folder { .. } => {}
        _ => request["data_text"] = contents.into(),
    }
    request
}
