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

/// Path of the firmware image for direct kernel boot on this machine.
///
/// # Errors
/// [`VmError::ToolMissing`] when QEMU's firmware files are not where its packages put them.
pub fn find() -> Result<PathBuf, VmError> {
    CANDIDATES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        VmError::ToolMissing { program: "qemu firmware", looked_in: CANDIDATES.join(", ") }
    })
}
