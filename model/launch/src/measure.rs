//! The order in which VMMs add pages.

use ah_digest::Sha384;

use crate::PAGE_BYTES;
use crate::digest::LaunchDigest;
use crate::firmware::{Firmware, FirmwareError, Section, SectionKind};
use crate::hash_table::HashTable;
use crate::vmsa::{BSP_RESET_VECTOR, Vmm, save_area};

/// Largest firmware image, bytes.
pub const MAX_FIRMWARE_BYTES: usize = 64 * 1024 * 1024;
/// Most virtual processors.
pub const MAX_VCPUS: u32 = 1024;
/// Where the page of the hash table is measured for firmware that names no place for it (guest physical address).
pub const PLAIN_HASH_TABLE_GPA: u64 = 0x80_0000;

const FOUR_GIB: u64 = 1 << 32;
/// IGVM files start with this word (IGVM specification, IGVM_FIXED_HEADER).
const IGVM_MAGIC: &[u8; 4] = b"IGVM";

/// Everything that a guest with direct kernel boot is launched from, under QEMU.
#[derive(Debug, Clone, Copy)]
pub struct LaunchInputs<'a> {
    /// Firmware image, whole pages, ends at 4 GiB.
    pub firmware: &'a [u8],
    /// Kernel as given to the VMM.
    pub kernel: &'a [u8],
    /// Initrd as given to the VMM; empty without one.
    pub initrd: &'a [u8],
    /// Command line as given to the VMM, without a NUL.
    pub cmdline: &'a str,
    /// Number of virtual processors, at least 1.
    pub vcpus: u32,
    /// CPUID leaf 1 EAX of the guest's processor model.
    pub vcpu_sig: u32,
    /// SEV_FEATURES; bit 0 is SNP.
    pub sev_features: u64,
}

/// What the firmware is handed to boot directly.
#[derive(Debug, Clone, Copy)]
pub struct DirectBoot<'a> {
    /// Kernel.
    pub kernel: &'a [u8],
    /// Initrd; empty without one.
    pub initrd: &'a [u8],
    /// Command line, without a NUL.
    pub cmdline: &'a str,
}

/// The general form: other VMMs, and guests whose firmware finds a boot disk by itself.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Who starts the guest.
    pub vmm: Vmm,
    /// Firmware image, whole pages, ends at 4 GiB.
    pub firmware: &'a [u8],
    /// Direct kernel boot; None where the firmware boots from a disk, which is then not measured.
    pub boot: Option<DirectBoot<'a>>,
    /// Number of virtual processors, at least 1.
    pub vcpus: u32,
    /// CPUID leaf 1 EAX of the guest's processor model.
    pub vcpu_sig: u32,
    /// SEV_FEATURES; bit 0 is SNP.
    pub sev_features: u64,
}

/// Why no launch digest was computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No virtual processor, or too many.
    #[error("guest has {found} vcpus, expected 1 to {MAX_VCPUS}")]
    Vcpus {
        /// Number found.
        found: u32,
    },
    /// Firmware that is not whole pages up to 64 MiB.
    #[error("firmware has {found} bytes, expected a multiple of {PAGE_BYTES} up to 64 MiB")]
    FirmwareSize {
        /// Length found, bytes.
        found: usize,
    },
    /// The firmware is an IGVM file.
    #[error("firmware is an igvm file: igvm launches cannot be measured yet")]
    Igvm,
    /// The firmware's own tables are broken.
    #[error("firmware is not understood")]
    Firmware(#[from] FirmwareError),
    /// A NUL in the command line: guest and VMM would disagree where it ends.
    #[error("kernel command line holds a nul byte")]
    CmdlineNul,
    /// A kernel is given, but the firmware would not compare it with the measured digests.
    #[error("firmware measures no kernel: its sev metadata has no place for the hash table")]
    NoKernelHashes,
    /// The hash table does not fit into its page.
    #[error("firmware places the hash table at {gpa:#x}, where it crosses a page end")]
    HashTablePlace {
        /// Address found.
        gpa: u64,
    },
    /// More than one processor, but the firmware names no place where others start.
    #[error("firmware has no sev-es reset block, so it can start one vcpu only")]
    NoApResetVector,
}

/// The launch digest of a guest that QEMU starts with direct kernel boot.
///
/// Firmware with SEV metadata is measured as QEMU does under SEV-SNP. Firmware without (SeaBIOS and the like, which no
/// SEV-SNP machine boots) is measured in the same spirit: its pages, the page of the hash table at
/// [`PLAIN_HASH_TABLE_GPA`], then all processors at the reset vector. The software TEE reports that value.
///
/// # Errors
/// [`LaunchError`], a variant per cause.
pub fn measure(inputs: &LaunchInputs<'_>) -> Result<Sha384, LaunchError> {
    let LaunchInputs { firmware, kernel, initrd, cmdline, vcpus, vcpu_sig, sev_features } = *inputs;
    measure_launch(&Launch {
        vmm: Vmm::Qemu,
        firmware,
        boot: Some(DirectBoot { kernel, initrd, cmdline }),
        vcpus,
        vcpu_sig,
        sev_features,
    })
}

/// The launch digest of any launch that this crate knows.
///
/// # Errors
/// [`LaunchError`], a variant per cause.
pub fn measure_launch(launch: &Launch<'_>) -> Result<Sha384, LaunchError> {
    check_inputs(launch)?;
    let firmware = Firmware::parse(launch.firmware)?;
    let table = launch
        .boot
        .map(|DirectBoot { kernel, initrd, cmdline }| HashTable::of(kernel, initrd, cmdline));
    let mut digest = LaunchDigest::default();
    add_firmware(&mut digest, launch.firmware);
    match firmware.sections.is_empty() {
        true => add_plain_table(&mut digest, table)?,
        false => add_sections(&mut digest, launch.vmm, &firmware, table)?,
    }
    add_processors(&mut digest, launch, &firmware)?;
    Ok(digest.value())
}

fn check_inputs(launch: &Launch<'_>) -> Result<(), LaunchError> {
    if !(1..=MAX_VCPUS).contains(&launch.vcpus) {
        return Err(LaunchError::Vcpus { found: launch.vcpus });
    }
    if launch.firmware.starts_with(IGVM_MAGIC) {
        return Err(LaunchError::Igvm);
    }
    let found = launch.firmware.len();
    if found == 0 || !found.is_multiple_of(PAGE_BYTES) || found > MAX_FIRMWARE_BYTES {
        return Err(LaunchError::FirmwareSize { found });
    }
    match launch.boot {
        Some(DirectBoot { cmdline, .. }) if cmdline.contains('\0') => Err(LaunchError::CmdlineNul),
        _ => Ok(()),
    }
}

fn add_firmware(digest: &mut LaunchDigest, image: &[u8]) {
    let (pages, _) = image.as_chunks::<PAGE_BYTES>();
    // At most 64 MiB, so the start is well above zero.
    let length = u64::try_from(image.len()).unwrap_or(FOUR_GIB);
    let start = FOUR_GIB.saturating_sub(length);
    for (page, gpa) in pages.iter().zip((start..).step_by(PAGE_BYTES)) {
        digest.normal(gpa, page);
    }
}

fn add_plain_table(digest: &mut LaunchDigest, table: Option<HashTable>) -> Result<(), LaunchError> {
    if let Some(table) = table {
        let place = LaunchError::HashTablePlace { gpa: PLAIN_HASH_TABLE_GPA };
        digest.normal(PLAIN_HASH_TABLE_GPA, &table.page(0).ok_or(place)?);
    }
    Ok(())
}

fn add_sections(
    digest: &mut LaunchDigest,
    vmm: Vmm,
    firmware: &Firmware,
    table: Option<HashTable>,
) -> Result<(), LaunchError> {
    let has_place = firmware.sections.iter().any(|s| s.kind == SectionKind::KernelHashes);
    if table.is_some() && !has_place {
        return Err(LaunchError::NoKernelHashes);
    }
    // EC2 adds the CPUID page behind all others.
    let late = |section: &&Section| vmm == Vmm::Ec2 && section.kind == SectionKind::Cpuid;
    let sections = firmware.sections.iter();
    for section in sections.clone().filter(|s| !late(s)).chain(sections.filter(late)) {
        add_section(digest, vmm, firmware, section, table)?;
    }
    Ok(())
}

fn add_section(
    digest: &mut LaunchDigest,
    vmm: Vmm,
    firmware: &Firmware,
    section: &Section,
    table: Option<HashTable>,
) -> Result<(), LaunchError> {
    let end = section.gpa.saturating_add(section.size_bytes);
    let pages = (section.gpa..end).step_by(PAGE_BYTES);
    match (section.kind, table) {
        (SectionKind::KernelHashes, Some(table)) => {
            let gpa = firmware.hash_table_gpa.ok_or(LaunchError::NoKernelHashes)?;
            let offset = usize::try_from(gpa % PAGE_BYTES as u64).ok();
            let page = offset.and_then(|offset| table.page(offset));
            digest.normal(section.gpa, &page.ok_or(LaunchError::HashTablePlace { gpa })?);
        }
        (SectionKind::SecMem, _) if vmm == Vmm::Gce => {
            pages.for_each(|gpa| digest.unmeasured(gpa));
        }
        (SectionKind::SecMem | SectionKind::SvsmCaa | SectionKind::KernelHashes, _) => {
            pages.for_each(|gpa| digest.zero(gpa));
        }
        (SectionKind::Secrets, _) => digest.secrets(section.gpa),
        (SectionKind::Cpuid, _) => digest.cpuid(section.gpa),
    }
    Ok(())
}

fn add_processors(
    digest: &mut LaunchDigest,
    launch: &Launch<'_>,
    firmware: &Firmware,
) -> Result<(), LaunchError> {
    let Launch { vmm, vcpus, vcpu_sig, sev_features, .. } = *launch;
    digest.vmsa(&save_area(vmm, BSP_RESET_VECTOR, vcpu_sig, sev_features));
    if vcpus == 1 {
        return Ok(());
    }
    let plain = firmware.sections.is_empty().then_some(BSP_RESET_VECTOR);
    let start = firmware.ap_reset_vector.or(plain).ok_or(LaunchError::NoApResetVector)?;
    let page = save_area(vmm, start, vcpu_sig, sev_features);
    (1..vcpus).for_each(|_| digest.vmsa(&page));
    Ok(())
}
