//! Which kernel modules a pod needs, where they are, and in which order they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection as _};

use crate::ImageError;

/// When init loads a module: always, or only for the TEE that the command line names.
pub(crate) const GROUPS: [(&str, &[&str]); 3] = [
    // First what the agent needs to be reached, then what layers need, then the network.
    (
        "all",
        &[
            "vmw_vsock_virtio_transport",
            "virtio_blk",
            "dm_verity",
            "erofs",
            "overlay",
            "virtio_net",
        ],
    ),
    // sha256_ssse3 has the SHA-NI code that makes dm-verity four times as fast; every SNP and TDX CPU has SHA-NI.
    ("snp", &["sev_guest", "sha256_ssse3"]),
    ("tdx", &["tdx_guest", "sha256_ssse3"]),
];

/// A module, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The modules of all groups in load order: each after those it depends on.
pub(crate) fn collect(package: &Path, release: &str) -> Result<Vec<Module>, ImageError> {
    let tree = Tree::read(package, release)?;
    let mut done = BTreeSet::new();
    let mut modules = Vec::new();
    for (group, names) in GROUPS {
        // A module of one TEE's group may be needed by another group, too; `all` is loaded before both.
        let mut seen: BTreeSet<String> = done.clone();
        for name in names {
            tree.add(name, group, &mut seen, &mut modules)?;
        }
        if group == "all" {
            done = seen;
        }
    }
    Ok(modules)
}

struct Tree<'a> {
    release: &'a str,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl<'a> Tree<'a> {
    fn read(package: &Path, release: &'a str) -> Result<Self, ImageError> {
        let folder = [package.join("lib/modules"), package.join("usr/lib/modules")]
            .into_iter()
            .map(|folder| folder.join(release))
            .find(|folder| folder.exists())
            .unwrap_or_else(|| package.join("lib/modules").join(release));
        let list = folder.join("modules.builtin");
        let text = fs::read_to_string(&list).map_err(ImageError::file("read", &list))?;
        let built_in = text.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut files = BTreeMap::new();
        walk(&folder.join("kernel"), &mut files)?;
        Ok(Self { release, files, built_in })
    }

    fn add(
        &self,
        name: &str,
        group: &'static str,
        seen: &mut BTreeSet<String>,
        modules: &mut Vec<Module>,
    ) -> Result<(), ImageError> {
        if self.built_in.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| ImageError::NoModule {
            release: self.release.to_owned(),
            module: name.to_owned(),
        })?;
        let bytes = unpacked(path)?;
        for dependency in dependencies(path, &bytes)? {
            self.add(&dependency, group, seen, modules)?;
        }
        modules.push(Module { group, name: name.to_owned(), bytes });
        Ok(())
    }
}

/// `.../dm-verity.ko.xz` is the module `dm_verity`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn walk(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), ImageError> {
    for entry in fs::read_dir(folder).map_err(ImageError::file("read", folder))? {
        let path = entry.map_err(ImageError::file("read", folder))?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn unpacked(path: &Path) -> Result<Vec<u8>, ImageError> {
    let file = fs::File::open(path).map_err(ImageError::file("open", path))?;
    let mut bytes = Vec::new();
    let result = if path.extension().is_some_and(|extension| extension == "xz") {
        xz2::read::XzDecoder::new(file).read_to_end(&mut bytes)
    } else {
        (&file).read_to_end(&mut bytes)
    };
    result.map_err(ImageError::file("unpack", path))?;
    Ok(bytes)
}

/// What modpost wrote into `.modinfo` as `depends=a,b`: the same facts that depmod(8) puts into modules.dep.
fn dependencies(path: &Path, bytes: &[u8]) -> Result<Vec<String>, ImageError> {
    let form = |reason: String| ImageError::ModuleForm { path: path.to_owned(), reason };
    let file = object::File::parse(bytes).map_err(|e| form(e.to_string()))?;
    let section = file.section_by_name(".modinfo").ok_or_else(|| form("no .modinfo".into()))?;
    let data = section.data().map_err(|e| form(e.to_string()))?;
    let field = data
        .split(|b| *b == 0)
        .find_map(|field| field.strip_prefix(b"depends="))
        .ok_or_else(|| form("no depends= in .modinfo".into()))?;
    let text = std::str::from_utf8(field).map_err(|e| form(e.to_string()))?;
    Ok(text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}
