//! Which firmware image QEMU is given: an explicit file, since its bytes are part of the launch measurement.

use std::path::PathBuf;

use crate::VmError;

/// Firmware that QEMU packages carry, best first.
///
/// qboot starts the kernel without looking for boot disks; SeaBIOS opens every virtio-blk disk first, which
/// costs about 12 ms each under TCG (40 layers: 1.93 s to power-off instead of 1.43 s).
const CANDIDATES: [&str; 4] = [
    "/usr/share/qemu/qboot.rom",
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/qemu/qboot/bios.bin",
];

/// OVMF built for SEV-SNP guests that boot a measured kernel (EDK2 OvmfPkg/AmdSev), where packages put it. No other
/// firmware checks the digests of kernel, initrd and command line that QEMU hands over with `kernel-hashes`.
const SNP_CANDIDATES: [&str; 4] = [
    "/usr/share/ovmf/OVMF.amdsev.fd",
    "/usr/share/OVMF/OVMF.amdsev.fd",
    "/usr/share/edk2/ovmf/OVMF.amdsev.fd",
    "/usr/share/qemu/OVMF.amdsev.fd",
];

const BRIDGE_CANDIDATES: [&str; 2] =
    ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];

/// Path of the firmware image for direct kernel boot on this machine.
///
/// # Errors
/// [`VmError::ToolMissing`] when QEMU's firmware files are not where its packages put them.
pub fn find() -> Result<PathBuf, VmError> {
    first("qemu firmware", &CANDIDATES)
}

/// Path of the firmware image for a SEV-SNP guest on this machine.
///
/// # Errors
/// [`VmError::ToolMissing`] when none is installed.
pub fn find_snp() -> Result<PathBuf, VmError> {
    first("OVMF for SEV-SNP (OVMF.amdsev.fd)", &SNP_CANDIDATES)
}

/// Path of the firmware image for a machine with bridges: SeaBIOS. qboot gives a bridge no addresses, so that what is plugged
/// in behind it has none either, and the kernel does not mend that.
///
/// # Errors
/// As [`find`].
pub fn find_for_bridges() -> Result<PathBuf, VmError> {
    first("SeaBIOS", &BRIDGE_CANDIDATES)
}

fn first(program: &'static str, candidates: &[&str]) -> Result<PathBuf, VmError> {
    let found = candidates.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| VmError::ToolMissing { program, looked_in: candidates.join(", ") })
}
