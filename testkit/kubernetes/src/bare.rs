//! VMs of the same kernel, with an initrd of one program: the yardstick.

use std::time::Instant;

use ah_vmm::{
    Accelerator, Disk, Network, RunDir, TeeLaunch, Tools, Vm, VmExit, VmSpec, VsockBackend,
};
use anyhow::{Result, bail};

use crate::Options;
use crate::site::{MEMORY_MIB, OVERHEAD_MIB};

/// As many as a pod's VM has.
const BRIDGES: u8 = 4;

/// A VM as the shim makes it, but for its initrd, its disks and its network.
pub(crate) async fn spec(
    options: &Options,
    initrd: &std::path::Path,
    more: &str,
) -> Result<(VmSpec, Tools)> {
    let tools = Tools::find(std::slice::from_ref(&options.tools))?;
    let cache = tempfile::tempdir()?;
    let accelerator: Accelerator = ah_vmm::accelerator::choose(&tools.qemu, cache.path()).await?;
    let cmdline = std::fs::read_to_string(options.guest.join("cmdline.software"))?;
    let spec = VmSpec {
        kernel: Some(options.guest.join("vmlinuz")),
        initrd: Some(initrd.to_owned()),
        firmware: ah_vmm::firmware::find_for_bridges()?,
        cmdline: format!("{}{more}", cmdline.trim()),
        vcpus: 1,
        memory_mib: MEMORY_MIB + OVERHEAD_MIB,
        disks: Vec::<Disk>::new(),
        bridges: BRIDGES,
        network: Network::None,
        vsock: VsockBackend::Auto,
        tee: TeeLaunch::None,
        accelerator,
    };
    Ok((spec, tools))
}

/// Runs it until it powers itself off; gives its console and the seconds that it took.
pub(crate) async fn run(spec: &VmSpec, tools: &Tools) -> Result<(String, f64)> {
    let begun = Instant::now();
    let vm = Vm::start(spec, tools, RunDir::create()?).await?;
    let exit = vm.wait().await;
    let seconds = begun.elapsed().as_secs_f64();
    let console = vm.console().text();
    if exit != VmExit::PoweredOff {
        bail!("the VM ended with {exit:?}: {console}");
    }
    Ok((console, seconds))
}
