//! What lies on the node becomes CopyFile requests, as the Kata runtime makes them without a shared file system (`ShareFile`).

use std::collections::BTreeMap;

use ah_agent_api::agent::CopyFileRequest;

use super::mounts::{Copied, CopyKind};

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_777;
/// What a file that is no volume's may have: none is executable (the kubelet's termination log is 0666).
const NODE_FILE_BITS: u32 = 0o666;
const PERMISSIONS: u32 = 0o7777;
/// The kubelet marks folders that its own clean-up spares with it; nobody else could remove what is in a read-only volume.
const STICKY: u32 = 0o1000;
/// Permissions of folders made on the way (Kata runtime, `DirMode`).
const DIR_MODE: u32 = 0o750;

/// A file, or a folder with all in it, by relative path; the top is `""`.
pub type HostTree = BTreeMap<String, Node>;

/// One part of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: NodeKind,
}

/// What a part of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A folder.
    Folder,
    /// A symbolic link to this.
    Link(String),
    /// A regular file with these bytes.
    File(Vec<u8>),
}

/// The requests that copy a tree, folders before what is in them.
pub fn copy_requests(copied: &Copied, tree: &HostTree) -> Vec<CopyFileRequest> {
    tree.iter().map(|(path, node)| request(copied, path, node)).collect()
}

fn request(copied: &Copied, path: &str, node: &Node) -> CopyFileRequest {
    let path = match path.is_empty() {
        true => copied.path.clone(),
        false => format!("{}/{path}", copied.path),
    };
    let bits = node.mode & PERMISSIONS;
    let (file_mode, data, size) = match &node.kind {
        NodeKind::Folder => (FOLDER | bits & !STICKY, Vec::new(), 0),
        NodeKind::Link(target) => (LINK, target.as_bytes().to_vec(), 0),
        NodeKind::File(bytes) => (file_mode(copied.kind, bits), bytes.clone(), bytes.len()),
    };
    let id = |id: u32| i32::try_from(id).unwrap_or(i32::MAX);
    let (uid, gid) = match copied.kind {
        CopyKind::NodeFile => (0, 0),
        CopyKind::Volume => (id(node.uid), id(node.gid)),
    };
    CopyFileRequest {
        path,
        file_size: i64::try_from(size).unwrap_or(i64::MAX),
        file_mode,
        dir_mode: DIR_MODE,
        uid,
        gid,
        data,
        ..Default::default()
    }
}

fn file_mode(kind: CopyKind, bits: u32) -> u32 {
    match kind {
        CopyKind::NodeFile => REGULAR | bits & NODE_FILE_BITS,
        CopyKind::Volume => REGULAR | bits,
    }
}
