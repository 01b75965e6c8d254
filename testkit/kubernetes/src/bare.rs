//! The VM that a pod would have, for programs of ours to be its initrd.

use ah_vmm::{Accelerator, Network, TeeLaunch, Tools, VmSpec, VsockBackend};
use anyhow::Result;

use crate::Options;
use crate::site::{MEMORY_MIB, OVERHEAD_MIB};

/// As many as a pod's VM has.
const BRIDGES: u8 = 5;

/// A VM as the shim makes it, but for its initrd, its disks and its network; `more` goes to the end of the kernel's command line.
pub(crate) async fn spec(options: &Options, more: &str) -> Result<(VmSpec, Tools)> {
    let tools = Tools::find(std::slice::from_ref(&options.tools))?;
    let cache = tempfile::tempdir()?;
    let accelerator: Accelerator = ah_vmm::accelerator::choose(&tools.qemu, cache.path()).await?;
    let cmdline = std::fs::read_to_string(options.guest.join("cmdline.software"))?;
    let spec = VmSpec {
        kernel: Some(options.guest.join("vmlinuz")),
        initrd: None,
        firmware: ah_vmm::firmware::find_for_bridges()?,
        cmdline: format!("{}{more}", cmdline.trim()),
        vcpus: 1,
        memory_mib: MEMORY_MIB + OVERHEAD_MIB,
        disks: Vec::new(),
        bridges: BRIDGES,
        network: Network::None,
        vsock: VsockBackend::Auto,
        tee: TeeLaunch::None,
        accelerator,
    };
    Ok((spec, tools))
}
