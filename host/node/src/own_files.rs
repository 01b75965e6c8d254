use std::path::PathBuf;

use ah_digest::Sha256;
use ah_shim::Tee;

use crate::install::{InstallError, read, remove, replace};

/// How the first line of a file of ours begins; the digest of the rest follows.
const SEAL: &str = "# Made by `anchorhold node install`, which replaces it unless it is changed. ";

/// A configuration file of ours. One that somebody has changed is never replaced and never removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Where.
    pub path: PathBuf,
    /// What it says, without its first line.
    pub text: String,
}

/// What became of a file that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was not there.
    New,
    /// It was as it is to be.
    Same,
    /// It was as another installation had made it.
    Updated,
    /// Somebody has changed or made it: it is left as it is.
    Kept,
}

/// What became of a file that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was as an installation had made it.
    Gone,
    /// It was not there.
    Absent,
    /// Somebody has changed or made it: it is left as it is.
    Kept,
}

impl OwnFile {
    /// Writes it whole, unless there is another of somebody else's.
    ///
    /// # Errors
    /// [`InstallError::File`].
    pub fn write(&self) -> Result<Written, InstallError> {
        let wanted = self.sealed();
        let found = read(&self.path)?;
        let done = match found.as_str() {
            "" => Written::New,
            found if found == wanted => return Ok(Written::Same),
            found if is_unchanged(found) => Written::Updated,
            _ => return Ok(Written::Kept),
        };
        replace(&self.path, &wanted, &self.path)?;
        Ok(done)
    }

    /// Removes what [`OwnFile::write`] wrote, whatever it said.
    ///
    /// # Errors
    /// [`InstallError::File`].
    pub fn remove(path: &std::path::Path) -> Result<Removed, InstallError> {
        match read(path)?.as_str() {
            "" => Ok(Removed::Absent),
            found if is_unchanged(found) => remove(path).map(|()| Removed::Gone),
            _ => Ok(Removed::Kept),
        }
    }

    fn sealed(&self) -> String {
        format!("{SEAL}{}\n{}", Sha256::of(&self.text), self.text)
    }
}

fn is_unchanged(text: &str) -> bool {
    let Some((seal, rest)) = text.split_once('\n') else { return false };
    seal.strip_prefix(SEAL) == Some(Sha256::of(rest).to_string().as_str())
}

/// What a handler's shim is told (docs/shim.md): every key, with its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimConfig {
    /// Where the file is.
    pub path: PathBuf,
    /// Whether pods must bring a policy.
    pub confidential: bool,
    /// The guest image's folder.
    pub guest: PathBuf,
    /// What signs a confidential guest's reports; one that is not confidential has the software TEE.
    pub tee: Tee,
    /// The software TEE's folder.
    pub software_tee: PathBuf,
    /// Where requests for keys go: only of confidential pods.
    pub key_service: Option<String>,
}

impl ShimConfig {
    /// The file.
    pub fn file(&self) -> OwnFile {
        let quoted = |text: &str| toml_edit::Value::from(text).to_string();
        let path = |path: &std::path::Path| quoted(&path.display().to_string());
        let (what, key_service) = match (self.confidential, &self.key_service) {
            (true, Some(address)) => {
                ("a pod without a policy is refused", format!("key_service = {}", quoted(address)))
            }
            (true, None) => (
                "a pod without a policy is refused",
                "# key_service = \"unix:/run/anchorhold/keys.sock\"".to_owned(),
            ),
            (false, _) => (
                "a pod is in a virtual machine that the node may ask anything of; a key bound to the launch measurement is not released to it",
                "# no key_service: requests for keys are not carried for such a pod".to_owned(),
            ),
        };
        let tee = if self.confidential { self.tee } else { Tee::Software };
        let signs = match tee {
            Tee::Software => "a program of this node signs reports: not confidential",
            Tee::Snp => "AMD SEV-SNP",
        };
        let text = format!(
            "# docs/shim.md says what each key is.\n\
             \n\
             # {what}\n\
             confidential = {confidential}\n\
             # {signs}\n\
             tee = \"{tee}\"\n\
             guest = {guest}\n\
             software_tee = {software_tee}\n\
             # where guests' requests for keys go: unix:/PATH or tcp:HOST:PORT\n\
             {key_service}\n\
             # size of a pod whose limits are not known; overhead_mib is what its VM has beside them, and a part of its RuntimeClass' overhead\n\
             vcpus = 1\n\
             memory_mib = 256\n\
             overhead_mib = {OVERHEAD_MIB}\n\
             # disks for what containers write: files without a name, which take what was written; 0 leaves it in the VM's memory\n\
             scratch_folder = \"/var/lib/anchorhold/scratch\"\n\
             scratch_mib = 16384\n\
             boot_limit_seconds = 60\n\
             # where the snapshotter counts for its metrics (events there)\n\
             metrics_events = \"/run/anchorhold/metrics-events.sock\"\n\
             # folders in which QEMU and vhost-device-vsock are looked for before PATH\n\
             tools = []\n",
            confidential = self.confidential,
            tee = tee.name(),
            guest = path(&self.guest),
            software_tee = path(&self.software_tee),
        );
        OwnFile { path: self.path.clone(), text }
    }
}

/// Memory of a pod's VM beside its containers, MiB: the shim's default. The RuntimeClasses in deploy/ count what the node's processes take, too.
const OVERHEAD_MIB: u32 = 192;

/// What the snapshotter is told: every key, with its default.
pub fn snapshotter_config(
    path: PathBuf,
    socket: &std::path::Path,
    containerd: &std::path::Path,
    otlp: Option<&str>,
) -> OwnFile {
    let otlp = match otlp {
        Some(url) => format!("otlp = {}", toml_edit::Value::from(url)),
        None => "# otlp = \"http://127.0.0.1:4317\"".to_owned(),
    };
    let quoted = |path: &std::path::Path| toml_edit::Value::from(path.display().to_string());
    let text = format!(
        "# docs/snapshotter.md says what each key is.\n\
         \n\
         root = \"/var/lib/anchorhold/snapshotter\"\n\
         socket = {}\n\
         containerd = {}\n\
         conversions = 2\n\
         # GET /metrics is answered there: unix:/PATH or tcp:IP:PORT\n\
         metrics = \"unix:/run/anchorhold/metrics.sock\"\n\
         events = \"/run/anchorhold/metrics-events.sock\"\n\
         # an OpenTelemetry collector for spans, OTLP over gRPC: http://HOST:PORT\n\
         {otlp}\n\
         log = \"info\"\n",
        quoted(socket),
        quoted(containerd),
    );
    OwnFile { path, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &std::path::Path, guest: &str) -> OwnFile {
        ShimConfig {
            path: folder.join("anchorhold-cc.toml"),
            confidential: true,
            guest: guest.into(),
            tee: Tee::Software,
            software_tee: "/tee".into(),
            key_service: Some("unix:/run/k.sock".into()),
        }
        .file()
    }

    #[test]
    fn what_somebody_has_changed_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (config(folder.path(), "/a"), config(folder.path(), "/b"));
        assert_eq!(first.write().unwrap(), Written::New);
        assert_eq!(first.write().unwrap(), Written::Same);
        assert_eq!(second.write().unwrap(), Written::Updated);
        let theirs = std::fs::read_to_string(&second.path).unwrap().replace("/b", "/c");
        std::fs::write(&second.path, &theirs).unwrap();
        assert_eq!(first.write().unwrap(), Written::Kept);
        assert_eq!(OwnFile::remove(&first.path).unwrap(), Removed::Kept);
        assert_eq!(std::fs::read_to_string(&second.path).unwrap(), theirs);
        std::fs::remove_file(&second.path).unwrap();
        first.write().unwrap();
        assert_eq!(OwnFile::remove(&first.path).unwrap(), Removed::Gone);
        assert_eq!(OwnFile::remove(&first.path).unwrap(), Removed::Absent);
    }
}
