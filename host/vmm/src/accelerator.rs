//! Who executes the guest's instructions, found out by letting a guest execute some.
//!
//! A device node proves nothing: /dev/kvm may open and QEMU abort all the same. So a guest of a dozen bytes
//! is run, and only its own sign of life counts.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

use crate::VmError;

/// Time for the probe: 60 ms where KVM works.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const ROM_BYTES: usize = 64 * 1024;
/// x86 starts 16 bytes below the end of the ROM (Intel SDM volume 3, 10.1.4).
const RESET_VECTOR: usize = ROM_BYTES - 16;
/// mov al, 0x2a; out 0xf4, al; hlt; jmp $-1
const PROGRAM: [u8; 7] = [0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
/// isa-debug-exit ends QEMU with twice the value that was written, plus one.
const SIGN_OF_LIFE: i32 = 0x2a * 2 + 1;
const CACHE_FILE: &str = "accelerator.json";

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The CPU, through the kernel's KVM.
    Kvm,
    /// QEMU's translator: works everywhere, slowly.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// The answer holds until the machine is started again or QEMU is another file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cached {
    boot_id: String,
    qemu: PathBuf,
    size_bytes: u64,
    modified_s: i64,
    accelerator: Accelerator,
}

/// KVM if a guest really runs under it within a time limit, else TCG. The answer is kept in a file of
/// `cache_dir` and asked again after a reboot or with another QEMU; an unreadable file counts as absent.
///
/// # Errors
/// [`VmError::Io`] when the probe's ROM cannot be written or QEMU not be started at all.
pub async fn choose(qemu: &Path, cache_dir: &Path) -> Result<Accelerator, VmError> {
    let question = |accelerator| -> Option<Cached> {
        let metadata = fs::metadata(qemu).ok()?;
        Some(Cached {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned(),
            qemu: qemu.to_path_buf(),
            size_bytes: metadata.len(),
            modified_s: metadata.mtime(),
            accelerator,
        })
    };
    let file = cache_dir.join(CACHE_FILE);
    let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
    if let Some(kept) = kept
        && question(kept.accelerator).as_ref() == Some(&kept)
    {
        return Ok(kept.accelerator);
    }
    let accelerator = match runs(qemu, Accelerator::Kvm, cache_dir).await? {
        true => Accelerator::Kvm,
        false => Accelerator::Tcg,
    };
    if let Some(answer) = question(accelerator) {
        keep(&file, &answer);
    }
    Ok(accelerator)
}

/// Without the file the next start asks again, that is all.
fn keep(file: &Path, answer: &Cached) {
    let Ok(text) = serde_json::to_vec(answer) else { return };
    let new = file.with_extension(format!("{}.tmp", std::process::id()));
    if fs::write(&new, text).and_then(|()| fs::rename(&new, file)).is_err() {
        let _ = fs::remove_file(&new);
    }
}

/// Whether the probe guest gives its sign of life.
async fn runs(qemu: &Path, accelerator: Accelerator, dir: &Path) -> Result<bool, VmError> {
    fs::create_dir_all(dir).map_err(VmError::io(format!("making {}", dir.display())))?;
    let rom = dir.join(format!("probe-{}-{accelerator}.rom", std::process::id()));
    fs::write(&rom, probe_rom()).map_err(VmError::io(format!("writing {}", rom.display())))?;
    let probe = Command::new(qemu)
        .args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35", "-m", "16M"])
        .args(["-accel", &accelerator.to_string()])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .arg("-bios")
        .arg(&rom)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let result = match probe {
        Ok(mut child) => {
            let status = timeout(PROBE_LIMIT, child.wait()).await;
            let alive = matches!(&status, Ok(Ok(status)) if status.code() == Some(SIGN_OF_LIFE));
            if status.is_err() {
                let _ = child.kill().await;
            }
            Ok(alive)
        }
        Err(error) => Err(VmError::io(format!("starting {}", qemu.display()))(error)),
    };
    let _ = fs::remove_file(&rom);
    result
}

fn probe_rom() -> Vec<u8> {
    let mut rom = vec![0xf4; ROM_BYTES];
    let end = RESET_VECTOR.saturating_add(PROGRAM.len());
    if let Some(place) = rom.get_mut(RESET_VECTOR..end) {
        place.copy_from_slice(&PROGRAM);
    }
    rom
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tools;

    #[tokio::test]
    async fn the_probe_guest_gives_its_sign_under_tcg() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Tools::find(&[]).unwrap().qemu;
        assert!(runs(&qemu, Accelerator::Tcg, dir.path()).await.unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A QEMU that ends well without having run the guest proves nothing.
    #[tokio::test]
    async fn only_the_guests_sign_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!runs(Path::new("/bin/true"), Accelerator::Kvm, dir.path()).await.unwrap());
        assert!(!runs(Path::new("/bin/false"), Accelerator::Kvm, dir.path()).await.unwrap());
        assert!(runs(Path::new("/nonexistent"), Accelerator::Kvm, dir.path()).await.is_err());
    }

    #[tokio::test]
    async fn the_answer_is_kept_until_qemu_changes() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Path::new("/bin/false");
        assert_eq!(choose(qemu, dir.path()).await.unwrap(), Accelerator::Tcg);
        let file = dir.path().join(CACHE_FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\"tcg\"", "\"kvm\"")).unwrap();
        assert_eq!(choose(qemu, dir.path()).await.unwrap(), Accelerator::Kvm);
        let other = Path::new("/bin/true");
        assert_eq!(choose(other, dir.path()).await.unwrap(), Accelerator::Tcg);
        fs::write(&file, "{}").unwrap();
        assert_eq!(choose(qemu, dir.path()).await.unwrap(), Accelerator::Tcg);
    }
}
