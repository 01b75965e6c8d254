//! A guest without a pod's plan: for a runtime that hears of containers one by one.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use ah_agent_client::{AgentClient, CallError};
use ah_vmm::{Accelerator, Disk, Network, RunDir, TeeLaunch, Tools, VmSpec, VsockBackend};

use crate::{
    Events, GuestFiles, LayerImage, SandboxError, ScratchConfig, VsockService,
    config::{INITDATA_SERIAL, layer_serial},
    events::Timeline,
    link::{self, Link},
    machine::Machine,
    scratch::ScratchFile,
    states::{Boot, initdata_file},
};

/// Bridges of a guest: room for 155 layers that are not known before the start.
const BRIDGES: u8 = 5;

/// What a guest is started from.
pub struct GuestConfig {
    /// The initdata disk byte for byte; opaque to the host.
    pub initdata_disk: Option<Vec<u8>>,
    /// The policy text of a pod without initdata (the AKS form).
    pub policy_text: Option<String>,
    /// Fragments of the policy, sent behind it; opaque to the host.
    pub fragments: Vec<String>,
    /// What boots.
    pub files: GuestFiles,
    /// Services of the host that the guest reaches over vsock at CID 2.
    pub services: Vec<VsockService>,
    /// Programs that the VM is made of.
    pub tools: Tools,
    /// Who executes guest instructions.
    pub accelerator: Accelerator,
    /// What keeps the host out of the guest's memory.
    pub tee: TeeLaunch,
    /// Number of virtual CPUs; part of the launch measurement.
    pub vcpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// The disk for what containers write; `None` leaves it in the guest's memory.
    pub scratch: Option<ScratchConfig>,
    /// The network card.
    pub network: Network,
    /// Longest time from the VM's start to the agent's first answer.
    pub boot_limit: Duration,
    /// Folder in which the VM has its sockets.
    pub run_base: PathBuf,
}

/// A running guest whose agent answers. Dropping it ends it.
pub struct Guest {
    link: Link,
}

impl Guest {
    /// Starts the VM and waits for the agent.
    ///
    /// # Errors
    /// [`SandboxError`] by blame; nothing of the VM stays.
    pub async fn boot(config: GuestConfig, events: Arc<dyn Events>) -> Result<Self, SandboxError> {
        let run_dir = RunDir::create_in(&config.run_base)?;
        let initdata = match &config.initdata_disk {
            Some(bytes) => Some(initdata_file(&run_dir, bytes)?),
            None => None,
        };
        let initdata = initdata.map(|path| Disk::read_only(path, INITDATA_SERIAL));
        // Held until the guest is up: QEMU has it open by then.
        let scratch = config.scratch.as_ref().map(ScratchFile::create).transpose()?;
        let scratch_disk = scratch.as_ref().map(ScratchFile::disk);
        let spec = VmSpec {
            kernel: Some(config.files.kernel),
            initrd: Some(config.files.initrd),
            firmware: config.files.firmware,
            cmdline: config.files.cmdline,
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            disks: initdata.into_iter().chain(scratch_disk).collect(),
            bridges: BRIDGES,
            network: config.network,
            vsock: VsockBackend::Auto,
            tee: config.tee,
            accelerator: config.accelerator,
        };
        let boot = Boot {
            spec: &spec,
            tools: &config.tools,
            services: &config.services,
            boot_limit: config.boot_limit,
            policy_text: config.policy_text.as_deref(),
            fragments: &config.fragments,
            tamper: None,
        };
        Ok(Self { link: boot.run(run_dir, Timeline::new(events)).await? })
    }

    /// The agent.
    pub fn agent(&self) -> &AgentClient {
        &self.link.agent
    }

    /// Waits for a call's answer; `container` is what people call the container that it is about.
    ///
    /// # Errors
    /// [`SandboxError`] by blame.
    pub async fn call<T>(
        &self,
        container: Option<&str>,
        answer: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, SandboxError> {
        self.link.call(container, answer).await
    }

    /// Plugs a layer in and gives its PCI path in Kata's form. One that is there already stays.
    ///
    /// # Errors
    /// [`SandboxError::Vm`].
    pub async fn plug(&self, layer: &LayerImage) -> Result<String, SandboxError> {
        let disk = Disk::read_only(&layer.path, layer_serial(layer));
        match &self.link.vm {
            Machine::Vm(vm) => Ok(vm.plug_disk(&disk).await?.to_string()),
            #[cfg(test)]
            Machine::Fake(_) => Ok("1b/01".into()),
        }
    }

    /// Waits for the VM's end and says how it came.
    pub async fn ended(&self) -> SandboxError {
        link::ended(&self.link.vm, &self.link.vm.wait().await)
    }

    /// Ends the VM at once; what it held goes when the value is dropped.
    pub async fn stop(&self) {
        match &self.link.vm {
            Machine::Vm(vm) => vm.stop().await,
            #[cfg(test)]
            Machine::Fake(_) => {}
        }
    }
}
