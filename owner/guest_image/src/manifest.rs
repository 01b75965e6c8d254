use ah_digest::Sha256;
use serde::{Deserialize, Serialize};

/// Where every byte of an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form; 1.
    pub format: Format,
    /// Where the kernel came from.
    pub kernel_origin: KernelOrigin,
    /// `vmlinuz`.
    pub kernel: Part,
    /// `initrd`.
    pub initrd: Part,
    /// `/init` in the initrd.
    pub init: Part,
    /// `/bin/anchorhold-agent` in the initrd.
    pub agent: Part,
    /// Kernel modules in the initrd, in load order.
    pub modules: Vec<ModulePart>,
}

/// The one version there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Format;

impl From<Format> for u32 {
    fn from(_: Format) -> Self {
        1
    }
}

impl TryFrom<u32> for Format {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        if version == 1 { Ok(Self) } else { Err(format!("format is {version}, expected 1")) }
    }
}

/// Where a kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase", deny_unknown_fields)]
pub enum KernelOrigin {
    /// A package of Debian's archive, found and checked by apt.
    Debian {
        /// Package name.
        package: String,
        /// Package version.
        version: String,
        /// SHA-256 of the package file.
        package_sha256: Sha256,
        /// As `uname -r` prints it.
        release: String,
    },
    /// A file that the builder gave; everything that a pod needs is built in.
    File,
}

/// One part's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// How many.
    pub bytes: u64,
}

impl Part {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::of(bytes), bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX) }
    }
}

/// One kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulePart {
    /// Module name.
    pub name: String,
    /// `all`, or the TEE for which it is loaded.
    pub group: String,
    /// Modules of different chains load at the same time.
    pub chain: usize,
    /// SHA-256 of the unpacked module without its signature.
    pub sha256: Sha256,
    /// Its length.
    pub bytes: u64,
}
