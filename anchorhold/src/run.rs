//! `anchorhold run`: kubelet, containerd, shim, key service and (with `--tee software`) the CPU on one machine.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ah_evidence::{GuestPolicy, HostData};
use ah_guest_image::GuestImage;
use ah_keyservice::{KeyService, LogEntry, Verdict};
use ah_pod::RuntimeHints;
use ah_policy::{InitData, PolicyDocument};
use ah_sandbox::{
    Events, GuestFiles, NetworkMode, Outcome, SandboxConfig, SandboxError, ScratchConfig, Stage,
    Stop, Stream, VsockService,
};
use ah_vmm::{TeeLaunch, Tools};
use anyhow::{Context, Result};
use serde_json::json;
use tokio::runtime::Handle;

use crate::cli::Run;
use crate::dirs::Dirs;
use crate::keys::{self, Accept};
use crate::prepare::Prepared;
use crate::tee::{self, Processor};
use crate::ui;
use crate::{guest, prepare};

/// Virtual CPUs of a pod's VM; part of the launch measurement. Sizing by the pod's limits comes with the Kubernetes node.
pub const VCPUS: u32 = 1;
/// What kernel and agent need beside the containers of a small pod.
const GUEST_OWN_MIB: u32 = 192;
/// Memory for containers without a limit.
const DEFAULT_MIB: u64 = 256;
/// What writable layers and volumes without a limit may take together; as a node's shim has it.
const SCRATCH_BYTES: u64 = 16 << 30;
/// Longest time from the VM's start to the agent's first answer: slow machines emulate.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// A run that is about to start: what the host hands to the VM, all of it the host's to change.
pub struct Launch {
    /// VM, disks, requests.
    pub sandbox: SandboxConfig,
    /// HOST_DATA of the report.
    pub host_data: HostData,
    /// POLICY of the report.
    pub guest_policy: GuestPolicy,
    /// The software TEE's folder and the key service, served to the guest.
    services: Services,
}

struct Services {
    processor: Processor,
    keys: Arc<KeyService>,
}

/// `anchorhold run`
pub(crate) async fn run(dirs: &Dirs, options: &Run) -> Result<ExitCode> {
    let start = Instant::now();
    let tee = tee::chosen(options.tee)?;
    match tee {
        ah_evidence::Tee::Software => eprintln!("{}", ui::SOFTWARE_TEE),
        hardware => eprintln!("tee: {hardware}"),
    }
    // Reading the image whole takes as long as making the policy.
    let image = tokio::task::spawn_blocking({
        let (dirs, folder) = (dirs.clone(), options.guest.clone());
        move || guest::load(&dirs, folder.as_deref())
    });
    let image = async { image.await.context("reading the guest image")? };
    // Whichever fails first is told at once.
    let (image, prepared) = tokio::try_join!(image, prepare::prepare(dirs, &options.source))?;
    let talk = Arc::new(Talk::new(options, start));
    let accept = Accept::from_option(options.danger_accept_software_tee);
    let launch = Launch::new(dirs, &image, tee, prepared, accept, talk.clone().observer()).await?;
    let outcome = launch.start(talk, stop_on_signals()?).await;
    match outcome {
        Ok(outcome) => Ok(exit_code(&outcome)),
        Err(error) => Err(refused(error)),
    }
}

impl Launch {
    /// Puts together what an honest host would start.
    pub async fn new(
        dirs: &Dirs,
        image: &GuestImage,
        tee: ah_evidence::Tee,
        prepared: Prepared,
        accept: Accept,
        observe: Option<ah_keyservice::Observer>,
    ) -> Result<Self> {
        let tools = Tools::find(&[])?;
        let cache = dirs.layers();
        let accelerator = ah_vmm::accelerator::choose(&tools.qemu, &cache).await?;
        let processor = Processor::open(dirs, tee, accelerator)?;
        let keys = Arc::new(keys::open(dirs, accept, observe).await?);
        let host_data = prepared.document.host_data_snp()?;
        let scratch = ScratchConfig {
            folder: dirs.scratch(),
            shared_bytes: SCRATCH_BYTES,
            limited_bytes: RuntimeHints::of(&prepared.pod).map_or(0, |hints| hints.limited_bytes()),
        };
        let sandbox = SandboxConfig {
            memory_mib: memory_mib(&prepared.pod, tee)?,
            pod: prepared.pod,
            initdata_disk: prepared.initdata.as_ref().map(InitData::to_disk),
            policy_text: match prepared.document {
                PolicyDocument::InitData(_) => None,
                PolicyDocument::Aks(policy) => Some(policy.policy().to_owned()),
            },
            fragments: prepared.fragments,
            guest: GuestFiles {
                kernel: image.kernel.clone(),
                initrd: image.initrd.clone(),
                cmdline: image.command_line(tee)?,
                firmware: guest::firmware(tee)?,
            },
            layers: prepared.layers,
            services: Vec::new(),
            tools,
            accelerator,
            tee: TeeLaunch::None,
            vcpus: VCPUS,
            scratch: Some(scratch),
            network: NetworkMode::User,
            boot_limit: BOOT_LIMIT,
            tamper: None,
        };
        let services = Services { processor, keys };
        Ok(Self { sandbox, host_data, guest_policy: tee::guest_policy(tee), services })
    }

    /// Measures the very files that QEMU will be given, starts the VM and runs the pod to its end.
    ///
    /// # Errors
    /// [`SandboxError`], split by blame.
    pub async fn start(self, events: Arc<dyn Events>, stop: Stop) -> Result<Outcome, SandboxError> {
        let config =
            self.served().map_err(|error| SandboxError::Config { detail: format!("{error:#}") })?;
        ah_sandbox::run(config, events, stop).await
    }

    /// The sandbox with its services at hand: for callers that lead it through its states themselves.
    ///
    /// # Errors
    /// When a file of the guest image cannot be read, or the software TEE refuses the launch.
    pub fn served(self) -> Result<SandboxConfig> {
        let Self { mut sandbox, host_data, guest_policy, services } = self;
        services.processor.attach(&mut sandbox, host_data, guest_policy)?;
        let handler = services.keys.blocking_handler(Handle::current());
        sandbox.services.push(VsockService::new(ah_agent_api::ports::KEY_RELEASE, handler));
        Ok(sandbox)
    }
}

/// The VM's memory: the containers' limits, or a default where one has none, and the guest's own need.
fn memory_mib(pod: &ah_pod::Pod, tee: ah_evidence::Tee) -> Result<u32> {
    let limits: u64 = pod
        .containers
        .iter()
        .map(|container| match container.resources.memory_limit_bytes {
            Some(bytes) => bytes.div_ceil(1 << 20),
            None => DEFAULT_MIB,
        })
        .fold(0, u64::saturating_add);
    let encrypted = tee != ah_evidence::Tee::Software;
    let size = ah_sandbox::vm_memory_mib(limits, GUEST_OWN_MIB, encrypted);
    u32::try_from(size).context("memory limits of the pod are beyond any machine")
}

/// Ctrl-C and SIGTERM: once for the containers' own way, twice for at once.
fn stop_on_signals() -> Result<Stop> {
    let (handle, stop) = Stop::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("stopping (again: at once)");
            handle.end();
        }
    });
    Ok(stop)
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    ExitCode::from(u8::try_from(outcome.exit_code).unwrap_or(u8::MAX))
}

/// Names the refusing part first; the library's text says why.
pub fn refused(error: SandboxError) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// What is printed while a pod runs.
struct Talk {
    stages: bool,
    json: bool,
    start: Instant,
    base: Instant,
    out: Mutex<()>,
}

impl Talk {
    fn new(options: &Run, start: Instant) -> Self {
        let (stages, json) = (options.stages, options.json);
        Self { stages, json, start, base: Instant::now(), out: Mutex::new(()) }
    }

    fn observer(self: Arc<Self>) -> Option<ah_keyservice::Observer> {
        Some(Arc::new(move |entry: &LogEntry| self.decision(entry)))
    }

    fn decision(&self, entry: &LogEntry) {
        let key = entry.key_id.as_ref().map(|id| id.as_str()).unwrap_or("-");
        let tee = entry.tee.as_deref().unwrap_or("unknown");
        let verdict = match entry.decision {
            Verdict::Released => "released",
            Verdict::Refused => "refused",
            Verdict::Done => return,
        };
        let unmet = entry.conditions.iter().filter(|_| entry.decision == Verdict::Refused);
        let unmet = unmet.map(|condition| format!("{} differs", condition.claim));
        let reasons = entry.reasons.iter().cloned().chain(unmet).collect::<Vec<_>>().join("; ");
        let _one = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if self.json {
            eprintln!(
                "{}",
                json!({ "key_service": verdict, "key": key, "tee": tee, "reasons": entry.reasons })
            );
        } else if reasons.is_empty() {
            eprintln!("key service: {verdict} {key} (tee: {tee})");
        } else {
            eprintln!("key service: {verdict} {key} (tee: {tee}): {reasons}");
        }
    }
}

impl Events for Talk {
    fn output(&self, container: &str, stream: Stream, line: &[u8]) {
        let _one = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("[{container}] ").into_bytes();
        text.extend_from_slice(line);
        text.push(b'\n');
        // A closed pipe on our side must not end the pod.
        let _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(&text),
            Stream::Stderr => std::io::stderr().write_all(&text),
        };
    }

    fn stage(&self, stage: &Stage) {
        let seconds = stage.at.as_secs_f64();
        let total = (self.base - self.start + stage.at).as_secs_f64();
        let subject = stage.subject.as_deref();
        let _one = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if self.json {
            let name = stage.name.to_string();
            eprintln!(
                "{}",
                json!({ "stage": name, "subject": subject, "vm_s": seconds, "total_s": total })
            );
        } else if self.stages {
            let subject = subject.map(|subject| format!(" ({subject})")).unwrap_or_default();
            eprintln!("{total:>8.3} s  {}{subject}", stage.name);
        }
    }

    fn ended(&self, container: &str, exit_code: i32) {
        if exit_code != 0 && !self.json {
            eprintln!("container {container} ended with exit code {exit_code}");
        }
    }

    fn out_of_memory(&self, container: &str) {
        eprintln!("container {container} ran out of memory");
    }
}
