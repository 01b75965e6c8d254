use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Disk that files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Bytes of the unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// What a folder's files take, each inode once. What vanishes while it is counted does not count.
pub(crate) fn of_folder(folder: &Path) -> Usage {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    for entry in walkdir::WalkDir::new(folder).into_iter().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if seen.insert((metadata.dev(), metadata.ino())) {
            usage.bytes += metadata.blocks() * STAT_BLOCK_BYTES;
            usage.inodes += 1;
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, vec![1; 100_000]).unwrap();
        let before = of_folder(folder.path());
        assert_eq!(before.inodes, 2);
        assert!(before.bytes >= 100_000, "{before:?}");
        std::fs::hard_link(&file, folder.path().join("b")).unwrap();
        assert_eq!(of_folder(folder.path()), before);
    }
}
