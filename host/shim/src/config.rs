//! The shim's configuration: one TOML file a runtime handler, named by containerd's runtime options, unknown keys refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use serde::Deserialize;

use crate::wire::options::Options;

/// Read where containerd's runtime options name no file.
const DEFAULT_PATH: &str = "/etc/anchorhold/shim.toml";
/// Longest file that is read, bytes.
const MAX_BYTES: u64 = 64 << 10;
/// The guest takes disks up to 4 TiB, of which half is for this.
const SCRATCH_MAX_MIB: u64 = 1 << 20;
/// Type of containerd's options for a runtime that it does not know.
const OPTIONS_TYPE: &str = "runtimeoptions.v1.Options";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: not readable", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be one.
    #[error("{}: found {found} bytes, expected at most {MAX_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// The text is no configuration.
    #[error("{}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// containerd's options are of another type.
    #[error(
        "containerd's runtime options: found type {found:?}, expected {OPTIONS_TYPE} with a ConfigPath"
    )]
    Options {
        /// The type.
        found: String,
    },
    /// A value that cannot be.
    #[error("{key}: found {found}, expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// What a runtime handler of the node is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether pods must bring a policy (`anchorhold-cc`); without it a pod without a policy runs in a VM that lets the node
    /// do what it likes (`anchorhold`).
    pub confidential: bool,
    /// What signs the guest's reports.
    pub tee: Tee,
    /// Folder with `vmlinuz`, `initrd` and `cmdline.<tee>`.
    pub guest: PathBuf,
    /// Firmware image; where QEMU's packages have it, if it is not said.
    #[serde(default)]
    pub firmware: Option<PathBuf>,
    /// Folder of the software TEE.
    #[serde(default = "default_software_tee")]
    pub software_tee: PathBuf,
    /// Where the guest's requests for keys go: `unix:PATH` or `tcp:HOST:PORT`.
    #[serde(default)]
    pub key_service: Option<KeyAddress>,
    /// Virtual CPUs of a pod whose size the kubelet does not say.
    #[serde(default = "default_vcpus")]
    pub vcpus: u32,
    /// Memory for the containers of a pod whose size the kubelet does not say, MiB.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// What kernel and agent need beside the containers, MiB.
    #[serde(default = "default_overhead_mib")]
    pub overhead_mib: u32,
    /// Folder for the disks of what containers write: files without a name that grow as they are written.
    #[serde(default = "default_scratch_folder")]
    pub scratch_folder: PathBuf,
    /// What a pod's writable layers and emptyDirs without a limit may take together, MiB; 0 leaves them and all emptyDirs in the VM's memory.
    #[serde(default = "default_scratch_mib")]
    pub scratch_mib: u64,
    /// Longest time from the VM's start to the agent's first answer, seconds.
    #[serde(default = "default_boot_limit_seconds")]
    pub boot_limit_seconds: u64,
    /// Socket of who counts on this node.
    #[serde(default = "default_metrics_events")]
    pub metrics_events: PathBuf,
    /// Folders in which QEMU and the vsock device are looked for before `PATH`.
    #[serde(default)]
    pub tools: Vec<PathBuf>,
}

/// What signs the guest's reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// A program of the node: not confidential.
    Software,
    /// AMD SEV-SNP. Written after its documents, and never run: there was no such machine.
    Snp,
}

impl Tee {
    /// Its name in the configuration, and in that of the file with the guest's command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Snp => "snp",
        }
    }
}

/// Where a key service listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum KeyAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(String),
}

impl TryFrom<String> for KeyAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.into())),
            _ => Err(format!("found {text:?}, expected unix:/PATH or tcp:HOST:PORT")),
        }
    }
}

fn default_software_tee() -> PathBuf {
    "/var/lib/anchorhold/software-tee".into()
}

fn default_vcpus() -> u32 {
    1
}

fn default_memory_mib() -> u32 {
    256
}

fn default_overhead_mib() -> u32 {
    192
}

fn default_scratch_folder() -> PathBuf {
    "/var/lib/anchorhold/scratch".into()
}

fn default_scratch_mib() -> u64 {
    16 << 10
}

fn default_metrics_events() -> PathBuf {
    ah_metrics::EVENTS_SOCKET.into()
}

fn default_boot_limit_seconds() -> u64 {
    60
}

impl Config {
    /// The file that containerd's runtime options name.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn of(options: Option<&Any>) -> Result<Self, ConfigError> {
        let path = match options.filter(|any| !any.type_url.is_empty()) {
            None => DEFAULT_PATH.into(),
            Some(any) => path(any)?,
        };
        Self::read(&path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = |source| ConfigError::File { path: path.into(), source };
        let found = std::fs::metadata(path).map_err(file)?.len();
        if found > MAX_BYTES {
            return Err(ConfigError::TooLarge { path: path.into(), found });
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        let toml = |source| ConfigError::Toml { path: path.into(), source };
        toml::from_str::<Self>(&text).map_err(toml)?.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let refuse =
            |key, found: String, expected| Err(ConfigError::Value { key, found, expected });
        match &self {
            config if !config.guest.is_absolute() => {
                refuse("guest", config.guest.display().to_string(), "an absolute path")
            }
            config if !config.scratch_folder.is_absolute() => {
                let found = config.scratch_folder.display().to_string();
                refuse("scratch_folder", found, "an absolute path")
            }
            config if config.scratch_mib > SCRATCH_MAX_MIB => {
                refuse("scratch_mib", config.scratch_mib.to_string(), "at most 1048576 (1 TiB)")
            }
            config if config.vcpus == 0 || config.vcpus > 255 => {
                refuse("vcpus", config.vcpus.to_string(), "1 to 255")
            }
            config if !config.confidential && config.tee != Tee::Software => {
                let expected =
                    "software where confidential is false: such a pod has no policy to prove";
                refuse("tee", config.tee.name().into(), expected)
            }
            config if !config.confidential && config.key_service.is_some() => {
                let expected =
                    "none where confidential is false: requests of its pods are not carried";
                refuse("key_service", "an address".into(), expected)
            }
            _ => Ok(self),
        }
    }

    pub(crate) fn boot_limit(&self) -> Duration {
        Duration::from_secs(self.boot_limit_seconds)
    }
}

fn path(options: &Any) -> Result<PathBuf, ConfigError> {
    let other = || ConfigError::Options { found: options.type_url.clone() };
    if options.type_url.rsplit('/').next() != Some(OPTIONS_TYPE) {
        return Err(other());
    }
    let options = Options::parse_from_bytes(&options.value).map_err(|_| other())?;
    match options.config_path.is_empty() {
        true => Ok(DEFAULT_PATH.into()),
        false => Ok(options.config_path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "confidential = true\ntee = \"software\"\nguest = \"/g\"\n";

    fn check(more: &str, expect: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.toml");
        std::fs::write(&path, format!("{LEAST}{more}")).unwrap();
        let found = Config::read(&path).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        });
        match (found, expect) {
            (Ok(_), None) => {}
            (Err(found), Some(expect)) if found.contains(expect) => {}
            (found, expect) => panic!("{more}: {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn keys_and_values_are_checked_by_name() {
        check("", None);
        check("key_service = \"unix:/run/k.sock\"\n", None);
        check("key_service = \"http://x\"\n", Some("unix:/PATH"));
        check("vcpus = 0\n", Some("vcpus"));
        check("scratch_mib = 0\nscratch_folder = \"/d\"\n", None);
        check("scratch_mib = 1048577\n", Some("scratch_mib"));
        check("scratch_folder = \"d\"\n", Some("scratch_folder"));
        check("fallback = true\n", Some("fallback"));
        check("tools = [\"/opt/bin\"]\n", None);
    }

    #[test]
    fn a_handler_without_confidentiality_has_no_key_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.toml");
        let text = LEAST.replace("true", "false");
        std::fs::write(&path, &text).unwrap();
        assert!(!Config::read(&path).unwrap().confidential);
        std::fs::write(&path, format!("{text}key_service = \"tcp:127.0.0.1:1\"\n")).unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Value { key: "key_service", .. })));
    }

    #[test]
    fn hardware_is_for_confidential_pods() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.toml");
        let text = LEAST.replace("software", "snp");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Config::read(&path).unwrap().tee, Tee::Snp);
        std::fs::write(&path, text.replace("true", "false")).unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Value { key: "tee", .. })));
        std::fs::write(&path, text.replace("snp", "tdx")).unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Toml { .. })));
    }

    #[test]
    fn options_of_another_runtime_are_refused() {
        let options = Any { type_url: "containerd.runc.v1.Options".into(), ..Default::default() };
        assert!(matches!(Config::of(Some(&options)), Err(ConfigError::Options { .. })));
        let value = Options { config_path: "/nowhere/x.toml".into(), ..Default::default() };
        let value = value.write_to_bytes().unwrap();
        let options = Any { type_url: OPTIONS_TYPE.into(), value, ..Default::default() };
        assert!(matches!(
            Config::of(Some(&options)),
            Err(ConfigError::File { path, .. }) if path.ends_with("x.toml")
        ));
    }
}
