//! How a confidential guest is asked of QEMU: pure data, made into arguments without touching the machine.

use std::{path::Path, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::VmError;

/// What keeps the host out of the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TeeLaunch {
    /// Nothing: an ordinary guest. The software report service plays the security processor.
    #[default]
    None,
    /// AMD SEV-SNP (QEMU 9.1 or newer).
    Snp(SnpLaunch),
    /// Intel TDX (QEMU 10.1 or newer).
    Tdx(TdxLaunch),
}

/// Launch values of an SEV-SNP guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpLaunch {
    /// HOST_DATA of the report.
    pub host_data: [u8; 32],
    /// Guest policy (SEV-SNP ABI, section 4.3).
    pub policy: u64,
    /// Position of the C-bit (CPUID 8000001F, EBX bits 5:0).
    pub cbitpos: u32,
    /// Physical address bits lost to encryption (CPUID 8000001F, EBX bits 11:6).
    pub reduced_phys_bits: u32,
}

/// Launch values of a TDX guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxLaunch {
    /// MRCONFIGID of the quote.
    pub mr_config_id: [u8; 48],
    /// vsock port of the host's quote generation service.
    pub quote_port: u32,
}

impl TeeLaunch {
    /// QOM type of the object that QEMU must know, if one is needed.
    pub(crate) fn qom_type(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Snp(_) => Some("sev-snp-guest"),
            Self::Tdx(_) => Some("tdx-guest"),
        }
    }

    /// The `-object` value of the guest's protection, named `tee0`.
    pub(crate) fn object(&self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Snp(snp) => Some(json!({
                "qom-type": "sev-snp-guest",
                "id": "tee0",
                "cbitpos": snp.cbitpos,
                "reduced-phys-bits": snp.reduced_phys_bits,
                "policy": snp.policy,
                "kernel-hashes": true,
                "host-data": BASE64.encode(snp.host_data),
            })),
            Self::Tdx(tdx) => Some(json!({
                "qom-type": "tdx-guest",
                "id": "tee0",
                "mrconfigid": BASE64.encode(tdx.mr_config_id),
                "quote-generation-socket": {
                    "type": "vsock", "cid": "2", "port": tdx.quote_port.to_string(),
                },
            })),
        }
    }

    /// Whether virtio devices must go through the guest's bounce buffers.
    pub(crate) fn is_confidential(&self) -> bool {
        self.qom_type().is_some()
    }

    /// What `-machine` needs besides.
    pub(crate) fn machine_suffix(&self) -> &'static str {
        match self {
            Self::None => "",
            Self::Snp(_) | Self::Tdx(_) => ",kernel-irqchip=split,confidential-guest-support=tee0",
        }
    }
}

/// Refuses a launch that this machine's QEMU does not know how to make.
///
/// # Errors
/// [`VmError::Unsupported`] names what is missing.
pub(crate) async fn check_supported(tee: &TeeLaunch, qemu: &Path) -> Result<(), VmError> {
    let Some(qom_type) = tee.qom_type() else { return Ok(()) };
    let output = tokio::process::Command::new(qemu)
        .args(["-object", "help"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(VmError::io(format!("asking {} for its objects", qemu.display())))?;
    let known = String::from_utf8_lossy(&output.stdout);
    match known.lines().any(|line| line.trim() == qom_type) {
        true => Ok(()),
        false => Err(VmError::Unsupported {
            what: "confidential guest",
            found: format!("{} without {qom_type}", qemu.display()),
            expected: "QEMU 9.1 or newer for SEV-SNP, 10.1 or newer for TDX",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snp_object_carries_host_data_and_kernel_hashes() {
        let snp = SnpLaunch {
            host_data: [0xab; 32],
            policy: 0x3_0000,
            cbitpos: 51,
            reduced_phys_bits: 1,
        };
        let tee = TeeLaunch::Snp(snp);
        assert_eq!(
            tee.object(),
            Some(json!({
                "qom-type": "sev-snp-guest", "id": "tee0", "cbitpos": 51, "reduced-phys-bits": 1,
                "policy": 0x3_0000, "kernel-hashes": true,
                "host-data": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=",
            }))
        );
        assert!(tee.machine_suffix().contains("confidential-guest-support=tee0"));
    }

    #[test]
    fn tdx_object_carries_mr_config_id() {
        let tee = TeeLaunch::Tdx(TdxLaunch { mr_config_id: [0; 48], quote_port: 4050 });
        let object = tee.object().unwrap();
        assert_eq!(object["mrconfigid"], "A".repeat(64));
        assert_eq!(object["quote-generation-socket"]["port"], "4050");
    }

    #[test]
    fn an_ordinary_guest_asks_for_nothing() {
        assert_eq!(TeeLaunch::None.object(), None);
        assert_eq!(TeeLaunch::None.machine_suffix(), "");
    }
}
