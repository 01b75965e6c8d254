use std::fs;

use ah_digest::Sha384;
use ah_evidence::Tee;
use ah_launch::LaunchInputs;

use crate::{GuestImage, ImageError};

/// The virtual machine's part of a launch measurement: what is neither the image's nor the pod's.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// The firmware that QEMU is given.
    pub firmware: &'a [u8],
    /// How many vCPUs.
    pub vcpus: u32,
    /// CPUID signature of the vCPU model (EAX of leaf 1), such as 0x800f12 for EPYC.
    pub vcpu_sig: u32,
    /// SEV_FEATURES of the save area; 1 is SEV-SNP alone.
    pub sev_features: u64,
}

/// The launch measurement of a guest of `image` on `machine`: what a report of that guest holds.
///
/// # Errors
/// The image cannot be read, the firmware is none, or the TEE measures in another way.
pub fn measure(image: &GuestImage, machine: &Machine<'_>, tee: Tee) -> Result<Sha384, ImageError> {
    if tee == Tee::Tdx {
        return Err(ImageError::Tee { tee });
    }
    let kernel = fs::read(&image.kernel).map_err(ImageError::file("read", &image.kernel))?;
    let initrd = fs::read(&image.initrd).map_err(ImageError::file("read", &image.initrd))?;
    let cmdline = image.command_line(tee)?;
    ah_launch::measure(&LaunchInputs {
        firmware: machine.firmware,
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &cmdline,
        vcpus: machine.vcpus,
        vcpu_sig: machine.vcpu_sig,
        sev_features: machine.sev_features,
    })
    .map_err(ImageError::Measure)
}
