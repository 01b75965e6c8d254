//! Which TEE this machine's kernel can start guests in, and what its CPU says of it.

use std::{fs, path::Path};

use crate::{SnpLaunch, VmError};

/// A TEE that the host's kernel has switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// Parameters in which KVM says so (Linux arch/x86/kvm/svm/sev.c and vmx/tdx.c), `Y` or `N`.
const PARAMETERS: [(HostTee, &str); 2] = [
    (HostTee::Snp, "sys/module/kvm_amd/parameters/sev_snp"),
    (HostTee::Tdx, "sys/module/kvm_intel/parameters/tdx"),
];
/// Leaf of CPUID with AMD's memory encryption (AMD64 APM volume 3, E.4.17).
const ENCRYPTED_MEMORY_LEAF: &str = "CPUID 8000001F";

/// The TEE of this machine.
///
/// # Errors
/// [`VmError::Unsupported`] says what the kernel's parameters are when neither is on.
pub fn find() -> Result<HostTee, VmError> {
    find_below(Path::new("/"))
}

fn find_below(root: &Path) -> Result<HostTee, VmError> {
    let mut found = Vec::new();
    for (tee, parameter) in PARAMETERS {
        let value = fs::read_to_string(root.join(parameter));
        let value = value.as_deref().map_or("absent", str::trim);
        if matches!(value, "Y" | "1") {
            return Ok(tee);
        }
        found.push(format!("/{parameter} is {value}"));
    }
    Err(VmError::Unsupported {
        what: "confidential guest",
        found: found.join(", "),
        expected: "Y in one of them",
    })
}

impl SnpLaunch {
    /// Launch values for the CPU that this runs on.
    ///
    /// # Errors
    /// [`VmError::Unsupported`] when the CPU has no SEV-SNP.
    pub fn on_this_cpu(host_data: [u8; 32], policy: u64) -> Result<Self, VmError> {
        let absent = || VmError::Unsupported {
            what: "SEV-SNP",
            found: format!("{ENCRYPTED_MEMORY_LEAF} without it"),
            expected: "a CPU with SEV-SNP, switched on in its firmware",
        };
        let (cbitpos, reduced_phys_bits) = encrypted_memory().ok_or_else(absent)?;
        Ok(Self { host_data, policy, cbitpos, reduced_phys_bits })
    }
}

/// Position of the C-bit, and the physical address bits that encryption takes away.
#[cfg(target_arch = "x86_64")]
fn encrypted_memory() -> Option<(u32, u32)> {
    let info = raw_cpuid::CpuId::new().get_memory_encryption_info()?;
    let bits = (u32::from(info.c_bit_position()), u32::from(info.physical_address_reduction()));
    info.has_sev_snp().then_some(bits)
}

#[cfg(not(target_arch = "x86_64"))]
fn encrypted_memory() -> Option<(u32, u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parameter: usize, value: &str, expect: Option<HostTee>) {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(PARAMETERS[parameter].1);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, value).unwrap();
        assert_eq!(find_below(root.path()).ok(), expect);
    }

    #[test]
    fn the_kernel_says_which_tee_is_on() {
        check(0, "Y\n", Some(HostTee::Snp));
        check(0, "N\n", None);
        check(1, "Y\n", Some(HostTee::Tdx));
        check(1, "1\n", Some(HostTee::Tdx));
        check(1, "\n", None);
    }

    #[test]
    fn a_machine_without_any_is_told_what_was_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let text = find_below(root.path()).unwrap_err().to_string();
        for (_, parameter) in PARAMETERS {
            assert!(text.contains(&format!("/{parameter} is absent")), "{text}");
        }
    }
}
