//! Who executes the guest's instructions, found out by letting a guest execute some.
//!
//! A device node proves nothing: /dev/kvm may open and QEMU abort all the same. So a guest is run on the very
//! machine and CPU that pods get; it enters long mode with paging, as a kernel does, and only its own sign of
//! life counts.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

use crate::{VmError, qemu};

/// Time for the probe: 60 ms where KVM works.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const ROM_BYTES: usize = 64 * 1024;
/// x86 starts 16 bytes below the end of the ROM (Intel SDM volume 3, 10.1.4).
const RESET_VECTOR: usize = ROM_BYTES - 16;
/// jmp [`PROGRAM_OFFSET`], relative to the next instruction, modulo 64 KiB
const JUMP: [u8; 3] = [0xe9, 0x0d, 0xf0];
const PROGRAM_OFFSET: usize = 0xf000;
/// Real mode to long mode with the ROM's last 2 MiB mapped where they are; then CPUID and the sign of life.
#[rustfmt::skip]
const PROGRAM: [u8; 134] = [
    0xfa,                                                 // cli
    0x31, 0xc0, 0x8e, 0xd8,                               // ds := 0
    0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0, 0,       // level 4 table at 1000h: [0] := 2000h
    0x66, 0xc7, 0x06, 0x18, 0x20, 0x03, 0x30, 0, 0,       // level 3 table at 2000h: [3] := 3000h
    0x66, 0xc7, 0x06, 0xf8, 0x3f, 0x83, 0x00, 0xe0, 0xff, // level 2 table at 3000h: [511] := FFE00000h, 2 MiB
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0x80, 0xf0,             // lgdt cs:[F080h]
    0x0f, 0x20, 0xe0, 0x66, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, // cr4.PAE
    0x66, 0xb8, 0x00, 0x10, 0, 0, 0x0f, 0x22, 0xd8,       // cr3 := 1000h
    0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32,             // rdmsr EFER
    0x66, 0x0d, 0, 1, 0, 0, 0x0f, 0x30,                   // EFER.LME
    0x0f, 0x20, 0xc0, 0x66, 0x0d, 1, 0, 0, 0x80, 0x0f, 0x22, 0xc0, // cr0.PE, cr0.PG
    0x66, 0xea, 0x5e, 0xf0, 0xff, 0xff, 0x08, 0,          // jmp 8:FFFFF05Eh
    0xb8, 1, 0, 0, 0, 0x0f, 0xa2,                         // cpuid 1
    0xb0, 0x2a, 0xe6, 0xf4,                               // out f4h, 2ah
    0xf4, 0xeb, 0xfd,                                     // hlt, for ever
    0x0f, 0x1f, 0x40, 0,
    0, 0, 0, 0, 0, 0, 0, 0,                               // descriptor 0
    0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0,                   // descriptor 8: 64-bit code
    0x0f, 0, 0x70, 0xf0, 0xff, 0xff,                      // limit and base of the two
];
/// isa-debug-exit ends QEMU with twice the value that was written, plus one.
const SIGN_OF_LIFE: i32 = 0x2a * 2 + 1;
/// Counted up when the probe asks for more.
const PROBE_VERSION: u32 = 2;
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
    probe: u32,
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
            probe: PROBE_VERSION,
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
        .args(qemu::probe_arguments(accelerator, &rom))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
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
    for (offset, code) in [(PROGRAM_OFFSET, &PROGRAM[..]), (RESET_VECTOR, &JUMP[..])] {
        rom.iter_mut().skip(offset).zip(code).for_each(|(place, byte)| *place = *byte);
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

    /// Machines differ; but a QEMU that aborts must not count as one that runs.
    #[tokio::test]
    async fn an_answer_about_kvm_comes_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Tools::find(&[]).unwrap().qemu;
        let kvm = runs(&qemu, Accelerator::Kvm, dir.path()).await.unwrap();
        eprintln!("kvm runs guests here: {kvm}");
        assert!(!kvm || Path::new("/dev/kvm").exists());
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
