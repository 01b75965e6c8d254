//! The node's mount table, for what a volume's `subPath` is mounted from; and the groups of volumes.
//!
//! Format: proc(5), `/proc/<pid>/mountinfo`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ah_pod::Medium;

/// What the node's file system says about the pod's volumes.
#[derive(Debug, Clone, Default)]
pub struct MountInfo {
    mounts: BTreeMap<PathBuf, Mounted>,
    groups: BTreeMap<PathBuf, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    device: String,
    root: PathBuf,
    is_tmpfs: bool,
}

impl MountInfo {
    /// Reads the table. Lines of another form are passed over: they are no mounts of this pod.
    pub fn parse(text: &str) -> Self {
        Self { mounts: text.lines().filter_map(line).collect(), groups: BTreeMap::new() }
    }

    /// Says which group a folder has, where it has one for what is made in it.
    pub fn with_group(mut self, folder: impl Into<PathBuf>, gid: u32) -> Self {
        self.groups.insert(folder.into(), gid);
        self
    }

    pub(super) fn group(&self, folder: &Path) -> Option<u32> {
        self.groups.get(folder).copied()
    }

    /// The kubelet mounts a tmpfs for `medium: Memory` and nothing for others (kubelet `pkg/volume/emptydir`).
    pub(super) fn medium(&self, folder: &Path) -> Medium {
        match self.mounts.get(folder).is_some_and(|mounted| mounted.is_tmpfs) {
            true => Medium::Memory,
            false => Medium::Disk,
        }
    }

    /// The part of `folder` that is mounted at `path`: empty for the whole, else `/...`; `None` when it is from elsewhere.
    pub(super) fn part_of(&self, path: &Path, folder: &Path) -> Option<String> {
        let part = self.mounts.get(path)?;
        let (at, above) = folder.ancestors().find_map(|at| Some((at, self.mounts.get(at)?)))?;
        let inside = above.root.join(folder.strip_prefix(at).ok()?);
        let rest = part.root.strip_prefix(&inside).ok()?.to_str()?;
        let same = part.device == above.device;
        same.then(|| if rest.is_empty() { String::new() } else { format!("/{rest}") })
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime ...`: device, root and mount point are fields 3 to 5, the type is behind a hyphen.
fn line(text: &str) -> Option<(PathBuf, Mounted)> {
    let mut fields = text.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let root = unescaped(fields.next()?);
    let at = unescaped(fields.next()?);
    // Options and any number of tags, then a hyphen and the type.
    let is_tmpfs = fields.skip_while(|field| *field != "-").nth(1) == Some("tmpfs");
    Some((at, Mounted { device, root, is_tmpfs }))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /pods/u/volumes/kubernetes.io~empty-dir/memory rw - tmpfs tmpfs rw
31 22 254:0 /pods/u/volumes/kubernetes.io~empty-dir/scratch/a\\040b /pods/u/volume-subpaths/scratch/app/0 rw - ext4 /dev/vda rw
32 22 0:40 /part /pods/u/volume-subpaths/memory/app/1 rw - tmpfs tmpfs rw
33 22 254:0 /pods/u/volumes/kubernetes.io~configmap/c/..1/f /pods/u/volume-subpaths/c/app/2 rw - ext4 /dev/vda rw
34 22 0:41 /part /pods/u/volume-subpaths/memory/app/3 rw - tmpfs tmpfs rw
";

    fn check(path: &str, volume: &str, expect: Option<&str>) {
        let mounted = MountInfo::parse(TABLE);
        let folder = format!("/pods/u/volumes/kubernetes.io~empty-dir/{volume}");
        let path = format!("/pods/u/volume-subpaths/{path}");
        let found = mounted.part_of(Path::new(&path), Path::new(&folder));
        assert_eq!(found.as_deref(), expect, "{path}");
    }

    #[test]
    fn a_volume_in_memory_is_a_tmpfs_of_its_own() {
        let mounted = MountInfo::parse(TABLE);
        let of = |name: &str| {
            mounted.medium(Path::new(&format!("/pods/u/volumes/kubernetes.io~empty-dir/{name}")))
        };
        assert_eq!(of("memory"), Medium::Memory);
        assert_eq!(of("scratch"), Medium::Disk);
        assert_eq!(MountInfo::default().medium(Path::new("/tmp")), Medium::Disk);
    }

    #[test]
    fn parts_of_volumes_on_disk_and_in_memory() {
        check("scratch/app/0", "scratch", Some("/a b"));
        check("memory/app/1", "memory", Some("/part"));
        check("c/app/2", "c", None);
        check("memory/app/3", "memory", None);
        check("none/app/0", "none", None);
    }
}
