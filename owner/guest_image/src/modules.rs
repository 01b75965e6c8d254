//! Which kernel modules a pod needs, where they are, and in which order they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection as _};

use crate::ImageError;

/// When a module is loaded: always, only for the TEE that the command line names, only where the host attached a scratch disk, or only for a pod whose
/// policy has it asked for.
pub(crate) const GROUPS: [(&str, &[&str]); 5] = [
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
    // AEGIS-128 needs AES-NI, which every SNP and TDX CPU has. ext4 is built in.
    ("scratch", &["dm_integrity", "dm_crypt", "aegis128_aesni"]),
    // Whoever reaches a guest's network reaches its protocols: this one is for pods that say SCTP.
    ("sctp", &["sctp"]),
];

/// A module, unpacked, without its signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) group: &'static str,
    /// Modules of different chains do not need each other and may load at the same time.
    pub(crate) chain: usize,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The modules of all groups in load order: each after those it depends on.
pub(crate) fn collect(package: &Path, release: &str) -> Result<Vec<Module>, ImageError> {
    let tree = Tree::read(package, release)?;
    let mut modules = Vec::new();
    let mut chain = 0;
    for (group, names) in GROUPS {
        for name in names {
            let mut wanted = Vec::new();
            tree.add(name, group, chain, &mut wanted)?;
            join_chain(&mut modules, wanted);
            chain += 1;
        }
    }
    Ok(modules)
}

/// Appends the modules that are not there yet. When one is there for the same or for every TEE, the whole of `wanted` has to wait for it and goes into
/// its chain.
fn join_chain(modules: &mut Vec<Module>, wanted: Vec<Module>) {
    let shared = |module: &Module| {
        modules.iter().find(|have| {
            have.name == module.name && (have.group == "all" || have.group == module.group)
        })
    };
    let chain = wanted.iter().find_map(shared).map(|have| have.chain);
    let new: Vec<bool> = wanted.iter().map(|module| shared(module).is_none()).collect();
    for (module, _) in wanted.into_iter().zip(new).filter(|(_, new)| *new) {
        modules.push(Module { chain: chain.unwrap_or(module.chain), ..module });
    }
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

    /// Appends `name` and, before it, what it depends on; each once.
    fn add(
        &self,
        name: &str,
        group: &'static str,
        chain: usize,
        modules: &mut Vec<Module>,
    ) -> Result<(), ImageError> {
        if self.built_in.contains(name) || modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| ImageError::NoModule {
            release: self.release.to_owned(),
            module: name.to_owned(),
        })?;
        let bytes = without_signature(path, unpacked(path)?)?;
        for dependency in dependencies(path, &bytes)? {
            self.add(&dependency, group, chain, modules)?;
        }
        modules.push(Module { group, chain, name: name.to_owned(), bytes });
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

/// The text at the end of a signed module (Linux include/linux/module_signature.h, MODULE_SIG_STRING).
const SIGNATURE_TEXT: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` before it; its last 4 bytes are the signature's length, big-endian.
const SIGNATURE_FIELDS_BYTES: usize = 12;

/// The module without the signature of Debian's kernel team: the initrd is measured as a whole, so the signature adds nothing, and checking
/// it would take most of the time that loading takes (15 ms a module under TCG).
fn without_signature(path: &Path, mut bytes: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let Some(signed) = bytes.strip_suffix(SIGNATURE_TEXT) else { return Ok(bytes) };
    let form = || ImageError::ModuleForm {
        path: path.to_owned(),
        reason: "its signature is longer than the file".into(),
    };
    let length = signed.last_chunk::<4>().ok_or_else(form)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| form())?;
    let rest = signed.len().checked_sub(SIGNATURE_FIELDS_BYTES + length).ok_or_else(form)?;
    bytes.truncate(rest);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn module(group: &'static str, chain: usize, name: &str) -> Module {
        Module { group, chain, name: name.to_owned(), bytes: Vec::new() }
    }

    #[test]
    fn modules_that_share_a_dependency_load_in_one_chain() {
        let mut modules = Vec::new();
        join_chain(&mut modules, vec![module("all", 0, "crc"), module("all", 0, "erofs")]);
        join_chain(&mut modules, vec![module("all", 1, "overlay")]);
        join_chain(&mut modules, vec![module("all", 2, "crc"), module("all", 2, "other")]);
        join_chain(&mut modules, vec![module("snp", 3, "tsm"), module("snp", 3, "sev")]);
        join_chain(&mut modules, vec![module("tdx", 4, "tsm"), module("tdx", 4, "tdx")]);
        let found: Vec<_> = modules.iter().map(|m| (m.group, m.chain, m.name.as_str())).collect();
        let expected = [
            ("all", 0, "crc"),
            ("all", 0, "erofs"),
            ("all", 1, "overlay"),
            ("all", 0, "other"),
            ("snp", 3, "tsm"),
            ("snp", 3, "sev"),
            ("tdx", 4, "tsm"),
            ("tdx", 4, "tdx"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_signature_is_taken_off() {
        let path = Path::new("x.ko");
        let mut signed = b"ELF and all".to_vec();
        signed.extend([9; 5]);
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        signed.extend(SIGNATURE_TEXT);
        assert_eq!(without_signature(path, signed.clone()).unwrap(), b"ELF and all");
        assert_eq!(without_signature(path, b"ELF".to_vec()).unwrap(), b"ELF");
        let length = signed.len() - SIGNATURE_TEXT.len() - 1;
        signed[length] = 200;
        assert!(matches!(without_signature(path, signed), Err(ImageError::ModuleForm { .. })));
    }
}
