//! The bare boot of a pod's VM, its kernel with one program that powers off: the yardstick of start-up, one for all benchmarks.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;

use ah_vmm::{Network, RunDir, Tools, Vm, VmExit, VmSpec};
use anyhow::{Result, bail};
use tempfile::TempDir;

/// A VM of a pod's size, firmware, kernel and command line, without what is the pod's own: its initrd, its disks, its network.
#[derive(Debug)]
pub struct BareBoot {
    spec: VmSpec,
    tools: Tools,
    /// Where the initrd is.
    _folder: TempDir,
}

impl BareBoot {
    /// Of a pod's VM, with the static program that powers off at once.
    ///
    /// # Errors
    /// When the program cannot be read or its initrd cannot be written.
    pub fn of(pod: VmSpec, tools: Tools, bench_init: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let initrd = folder.path().join("initrd");
        std::fs::write(&initrd, ah_guest_image::reference_initrd(bench_init)?)?;
        let spec =
            VmSpec { initrd: Some(initrd), disks: Vec::new(), network: Network::None, ..pod };
        Ok(Self { spec, tools, _folder: folder })
    }

    /// Seconds from the start of QEMU's supervisor to the end of all that the VM was.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn seconds(&self) -> Result<f64> {
        Ok(run(&self.spec, &self.tools).await?.1)
    }
}

/// Runs a VM until it powers itself off; gives its console and the seconds that it took.
///
/// # Errors
/// When it cannot be started, or ends otherwise.
pub async fn run(spec: &VmSpec, tools: &Tools) -> Result<(String, f64)> {
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
