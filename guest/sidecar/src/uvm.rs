//! What the platform tells a container about its utility VM: security policy, certificates of the host, endorsements.
//!
//! From the folder in `UVM_SECURITY_CONTEXT_DIR`, else the first `/security-context-*`, else
//! `/opt/confidential-containers/share/kata-containers`; if that has no endorsements, all from `UVM_SECURITY_POLICY`,
//! `UVM_HOST_AMD_CERTIFICATE` and `UVM_REFERENCE_INFO`.

use std::path::{Path, PathBuf};

use crate::base64;
use crate::certificates::Certified;

/// Largest file that is read, bytes: policies reach some megabytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What the platform tells. All of it is the host's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UvmInfo {
    /// Certificates of the host, if there were any.
    pub(crate) certified: Option<Certified>,
    /// Endorsements of the utility VM, base64 as they were found; may be empty.
    pub(crate) reference_info: String,
}

impl UvmInfo {
    /// Reads folder and environment. What is there has to be readable.
    pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut reference_info = String::new();
        let mut certificate = String::new();
        if let Some(folder) = folder(env) {
            reference_info = read_file(&folder.join("reference-info-base64"))?;
            certificate = read_file(&folder.join("host-amd-cert-base64"))?;
        }
        if reference_info.is_empty() {
            let value = |name: &str| env(name).unwrap_or_default().trim().to_owned();
            reference_info = value("UVM_REFERENCE_INFO");
            let of_environment = value("UVM_HOST_AMD_CERTIFICATE");
            if !of_environment.is_empty() {
                certificate = of_environment;
            }
        }
        base64::standard(&reference_info)
            .map_err(|error| format!("reference info is not base64: {error}"))?;
        let certified = match certificate.is_empty() {
            true => None,
            false => {
                let json = base64::standard(&certificate)
                    .map_err(|error| format!("host certificate is not base64: {error}"))?;
                Some(Certified::of_thim(&json)?)
            }
        };
        Ok(Self { certified, reference_info })
    }
}

fn folder(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(folder) = env("UVM_SECURITY_CONTEXT_DIR").filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir("/")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("security-context-"))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    let last = Path::new("/opt/confidential-containers/share/kata-containers");
    found.into_iter().next().or_else(|| last.is_dir().then(|| last.to_owned()))
}

/// The text of a file, empty when it is not there.
fn read_file(path: &Path) -> Result<String, String> {
    let failed = |words: &dyn std::fmt::Display| format!("{}: {words}", path.display());
    match std::fs::metadata(path) {
        Err(_) => return Ok(String::new()),
        Ok(found) if found.len() > MAX_FILE_BYTES => return Err(failed(&"file is too long")),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    Ok(text.trim().to_owned())
}
