//! The states before containers run.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use ah_agent_api::agent::CopyFileRequest;
use ah_agent_client::{AgentClient, Limit, Tamper};
use ah_pod::{HostValues, Pod, requests};
use ah_vmm::{GUEST_MAC, RunDir, Tools, Vm, VmError, VmSpec};
use futures_util::future::try_join_all;
use tokio::{net::UnixStream, time::timeout};

use crate::{
    Events, NetworkMode, SandboxConfig, SandboxError, VsockService,
    events::{StageName, Timeline},
    ids,
    link::{self, Link},
    machine::Machine,
    scratch::ScratchFile,
    services::Services,
};

/// vsock port of the agent.
const AGENT_PORT: u32 = ah_agent_api::ports::AGENT;
const SOFTWARE_REPORT_PORT: u32 = ah_agent_api::ports::SOFTWARE_REPORT;
/// Time for the first answer on an open connection.
const CHECK_LIMIT: Limit = Limit::Within(Duration::from_secs(10));

/// A sandbox that can be started: everything that needs no VM is checked.
pub struct Configured {
    config: SandboxConfig,
    spec: VmSpec,
    host: HostValues,
    run_dir: RunDir,
    scratch: Option<ScratchFile>,
    timeline: Timeline,
}

impl Configured {
    /// Checks the configuration and chooses the identifiers of this run.
    ///
    /// # Errors
    /// [`SandboxError::Config`], [`SandboxError::Request`] or [`SandboxError::Vm`] for what cannot be run.
    pub fn new(config: SandboxConfig, events: Arc<dyn Events>) -> Result<Self, SandboxError> {
        requests::check(&config.pod)?;
        let run_dir = RunDir::create()?;
        let initdata = match &config.initdata_disk {
            Some(bytes) => Some(initdata_file(&run_dir, bytes)?),
            None => None,
        };
        let scratch = config.scratch.as_ref().map(ScratchFile::create).transpose()?;
        let spec = config.vm_spec(initdata, scratch.as_ref().map(ScratchFile::disk))?;
        spec.check()?;
        let host = ids::host_values(&config.pod, config.pci_paths(&spec))?;
        Ok(Self { config, spec, host, run_dir, scratch, timeline: Timeline::new(events) })
    }

    /// The VM that will be started; the attack tests alter it.
    pub fn spec_mut(&mut self) -> &mut VmSpec {
        &mut self.spec
    }

    /// Starts the VM and waits for the agent.
    ///
    /// # Errors
    /// [`SandboxError::RefusedByInit`] when init refused what it was given; otherwise by blame.
    pub async fn boot(self) -> Result<Booted, SandboxError> {
        let Self { config, spec, host, run_dir, scratch, timeline } = self;
        let boot = Boot {
            spec: &spec,
            tools: &config.tools,
            services: &config.services,
            boot_limit: config.boot_limit,
            policy_text: config.policy_text.as_deref(),
            fragments: &config.fragments,
            tamper: config.tamper.clone(),
        };
        let link = boot.run(run_dir, timeline).await?;
        // QEMU has it open.
        drop(scratch);
        Ok(Booted { link, pod: config.pod, host, network: config.network })
    }
}

/// A boot: from the VM's start to an agent that answers and has its policy.
pub(crate) struct Boot<'a> {
    pub(crate) spec: &'a VmSpec,
    pub(crate) tools: &'a Tools,
    pub(crate) services: &'a [VsockService],
    pub(crate) boot_limit: Duration,
    pub(crate) policy_text: Option<&'a str>,
    pub(crate) fragments: &'a [String],
    pub(crate) tamper: Option<Arc<dyn Tamper>>,
}

impl Boot<'_> {
    pub(crate) async fn run(
        self,
        run_dir: RunDir,
        timeline: Timeline,
    ) -> Result<Link, SandboxError> {
        let vm = Vm::start(self.spec, self.tools, run_dir).await?;
        timeline.reached(StageName::VmStarted, None);
        let services = Services::start(&vm, self.services, &timeline)?;
        let stream = reach_agent(&vm, &services, self.services, self.boot_limit).await;
        let vm = Machine::Vm(Box::new(vm));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return Err(link::no_boot(&vm, error).await),
        };
        let mut agent = AgentClient::new(stream);
        if let Some(tamper) = self.tamper {
            agent = agent.with_tamper(tamper);
        }
        let link = Link { vm, agent, timeline, services };
        link.call(None, link.agent.check(CHECK_LIMIT)).await?;
        link.timeline.reached_first(StageName::KernelUp, None);
        link.timeline.reached(StageName::AgentReady, None);
        if let Some(policy) = self.policy_text {
            link.call(None, link.agent.set_policy(policy)).await?;
        }
        for fragment in self.fragments {
            link.call(None, link.agent.set_policy(fragment)).await?;
        }
        Ok(link)
    }
}

/// Where init asks for a software report before it starts the agent, that is waited for first: attempts to reach a
/// guest whose driver is just starting can leave the user-mode vsock device deaf for good (see `Vm::connect`).
async fn reach_agent(
    vm: &Vm,
    services: &Services,
    offered: &[VsockService],
    limit: Duration,
) -> Result<UnixStream, VmError> {
    let reached = async {
        if offered.iter().any(|service| service.port == SOFTWARE_REPORT_PORT) {
            tokio::select! {
                () = services.first_contact() => {}
                _ = vm.wait() => return Err(VmError::Ended),
            }
        }
        vm.connect_within(AGENT_PORT, limit).await
    };
    timeout(limit, reached)
        .await
        .unwrap_or(Err(VmError::Timeout { what: "the guest's first contact", limit }))
}

/// The VM runs and the agent answers.
pub struct Booted {
    link: Link,
    pod: Pod,
    host: HostValues,
    network: NetworkMode,
}

impl Booted {
    /// The agent, for calls outside a pod's ordinary life.
    pub fn agent(&self) -> &AgentClient {
        &self.link.agent
    }

    /// Gives the guest its address and routes.
    ///
    /// # Errors
    /// [`SandboxError`] by blame.
    pub async fn set_network(self) -> Result<Networked, SandboxError> {
        let Self { link, pod, host, network } = self;
        if network == NetworkMode::User {
            let interface = requests::interface(GUEST_MAC);
            link.call(None, link.agent.update_interface(&interface)).await?;
            link.call(None, link.agent.update_routes(&requests::routes())).await?;
            link.timeline.reached(StageName::NetworkSet, None);
        }
        Ok(Networked { link, pod, host })
    }
}

/// The guest has its network, if it is to have one.
pub struct Networked {
    link: Link,
    pod: Pod,
    host: HostValues,
}

impl Networked {
    /// Makes the sandbox and its container, copies the files of node and volumes in.
    ///
    /// # Errors
    /// [`SandboxError`] by blame.
    pub async fn create(self) -> Result<Created, SandboxError> {
        let Self { link, pod, host } = self;
        let request = requests::create_sandbox(&pod, &host);
        link.call(None, link.agent.create_sandbox(&request)).await?;
        copy(&link, &requests::copy_sandbox_files(&pod, &host)?).await?;
        let request = requests::create_sandbox_container(&pod, &host)?;
        link.call(None, link.agent.create_container(&request)).await?;
        link.call(None, link.agent.start_container(&host.sandbox_id)).await?;
        let mut files = Vec::new();
        for index in 0..pod.containers.len() {
            files.extend(requests::copy_container_files(&pod, index, &host)?);
        }
        copy(&link, &files).await?;
        link.timeline.reached(StageName::SandboxCreated, None);
        Ok(Created { link, pod, host })
    }
}

/// All at once: no file needs another to be there.
async fn copy(link: &Link, files: &[CopyFileRequest]) -> Result<(), SandboxError> {
    let copies = files.iter().map(|file| link.agent.copy_file(file));
    link.call(None, try_join_all(copies)).await.map(drop)
}

/// The sandbox is there; containers may be created.
pub struct Created {
    pub(crate) link: Link,
    pub(crate) pod: Pod,
    pub(crate) host: HostValues,
}

impl Created {
    /// The agent, for calls outside a pod's ordinary life.
    pub fn agent(&self) -> &AgentClient {
        &self.link.agent
    }

    /// The pod that runs.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Identifiers of this run.
    pub fn host_values(&self) -> &HostValues {
        &self.host
    }

    /// Ends the sandbox without running anything.
    pub async fn end(self) {
        self.link.vm.end().await;
    }
}

/// In the VM's own folder, which goes with the VM whatever ends it.
pub(crate) fn initdata_file(run_dir: &RunDir, bytes: &[u8]) -> Result<PathBuf, SandboxError> {
    let path = run_dir.path().join("initdata");
    fs::write(&path, bytes).map_err(SandboxError::io("writing the initdata disk"))?;
    Ok(path)
}
