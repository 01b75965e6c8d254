//! The smallest caller of this crate: one busybox container under a policy that allows everything, without
//! images, manifest or policy generator. `run_one GUEST_FOLDER [COMMAND...]` prints output and stages.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use ah_evidence::{GuestPolicy, HostData};
use ah_launch::LaunchInputs;
use ah_pod::{
    Accounts, Container, ContainerSecurity, DnsSettings, ImageFacts, Layer, Logs, Pod, PodName,
    PodSecurity, Resources, RestartPolicy, Role,
};
use ah_policy::InitData;
use ah_sandbox::{
    Events, GuestFiles, LayerImage, NetworkMode, SandboxConfig, Stage, Stop, Stream, VsockService,
};
use ah_software_tee::SoftwareTee;
use ah_verity::{BLOCK_BYTES, Superblock, TreeBuilder, VerityInfo, ZERO_SALT};
use ah_vmm::{Accelerator, TeeLaunch, Tools, firmware, supervisor};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A processor model's CPUID signature that the software TEE reports; nothing checks it here.
const VCPU_SIGNATURE: u32 = 0x0080_0f12;
const VCPUS: u32 = 2;
/// SEV-SNP ABI, section 4.3: SMT, and bit 17, which is always set.
const SMT_ALLOWED: u64 = 0x3_0000;

fn main() -> Result<()> {
    supervisor::run_if_asked();
    let mut arguments = std::env::args().skip(1);
    let guest = PathBuf::from(arguments.next().ok_or("usage: run_one GUEST_FOLDER [COMMAND...]")?);
    let mut command: Vec<String> = arguments.collect();
    if command.is_empty() {
        command = ["/bin/busybox", "echo", "hello"].map(str::to_owned).into();
    }
    let work = tempfile::tempdir()?;
    let layer = layer(work.path())?;
    let config = config(work.path(), &guest, layer, command)?;
    let (handle, stop) = Stop::new();
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                handle.end();
            }
        });
        ah_sandbox::run(config, Arc::new(Screen), stop).await
    });
    match outcome {
        Ok(outcome) => println!("exit code {}", outcome.exit_code),
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                println!("{error}");
                cause = error.source();
            }
        }
    }
    Ok(())
}

struct Screen;

impl Events for Screen {
    fn output(&self, container: &str, stream: Stream, line: &[u8]) {
        println!("{container} {stream:?}: {}", String::from_utf8_lossy(line));
    }

    fn stage(&self, stage: &Stage) {
        let subject = stage.subject.as_deref().unwrap_or_default();
        println!("{:>9.3} s  {} {subject}", stage.at.as_secs_f64(), stage.name);
    }
}

fn config(
    work: &Path,
    guest: &Path,
    layer: LayerImage,
    command: Vec<String>,
) -> Result<SandboxConfig> {
    let initdata = InitData::build(&allow_all(), &BTreeMap::new())?;
    let files = GuestFiles {
        kernel: guest.join("vmlinuz"),
        initrd: guest.join("initrd"),
        cmdline: fs::read_to_string(guest.join("cmdline.software"))?,
        firmware: firmware::find()?,
    };
    Ok(SandboxConfig {
        pod: pod(&layer, command),
        initdata_disk: Some(initdata.to_disk()),
        services: vec![report_service(work, &files, &initdata)?],
        guest: files,
        layers: vec![layer],
        tools: Tools::find(&[])?,
        accelerator: Accelerator::Tcg,
        tee: TeeLaunch::None,
        vcpus: VCPUS,
        memory_mib: 1024,
        network: NetworkMode::User,
        boot_limit: Duration::from_secs(120),
        tamper: None,
    })
}

fn report_service(work: &Path, files: &GuestFiles, initdata: &InitData) -> Result<VsockService> {
    let tee = SoftwareTee::open(work.join("tee"))?;
    let inputs = LaunchInputs {
        firmware: &fs::read(&files.firmware)?,
        kernel: &fs::read(&files.kernel)?,
        initrd: &fs::read(&files.initrd)?,
        cmdline: &files.cmdline,
        vcpus: VCPUS,
        vcpu_sig: VCPU_SIGNATURE,
        sev_features: 1,
    };
    let host_data = HostData::from(initdata.host_data_snp()?);
    let guest = tee.launch(&inputs, host_data, GuestPolicy::from_bits(SMT_ALLOWED)?)?;
    Ok(VsockService::new(ah_agent_api::ports::SOFTWARE_REPORT, move |stream| {
        if let Err(error) = guest.serve(stream) {
            println!("report service: {error}");
        }
    }))
}

fn allow_all() -> String {
    let rules = ah_agent_api::request_names().map(|name| format!("default {name} := true\n"));
    format!("package agent_policy\n{}", rules.collect::<String>())
}

/// busybox in a folder tree, as EROFS with its hash tree.
fn layer(work: &Path) -> Result<LayerImage> {
    let tree = work.join("tree");
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    let path = work.join("layer");
    let made =
        Command::new("mkfs.erofs").args(["--quiet", "-T0"]).arg(&path).arg(&tree).status()?;
    if !made.success() {
        return Err("mkfs.erofs failed".into());
    }
    let mut image = fs::read(&path)?;
    image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
    let mut builder = TreeBuilder::new(ZERO_SALT);
    builder.push_blocks(&image);
    let tree = builder.finish()?;
    let verity: VerityInfo = tree.info();
    image.extend(Superblock::of(&verity).encode());
    tree.levels().for_each(|level| image.extend(level));
    fs::write(&path, image)?;
    Ok(LayerImage { path, verity })
}

fn pod(layer: &LayerImage, command: Vec<String>) -> Pod {
    let image = ImageFacts {
        reference: format!("busybox@sha256:{}", layer.verity.root_hash),
        entrypoint: command,
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![Layer { diff_id: layer.verity.root_hash, verity: layer.verity }],
    };
    let container = Container {
        name: "app".into(),
        role: Role::Main,
        image,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        security: ContainerSecurity::default(),
        resources: Resources::default(),
        mounts: Vec::new(),
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".into(),
        execs: Vec::new(),
        release_socket: false,
    };
    Pod {
        name: PodName::Fixed("one".into()),
        namespace: None,
        hostname: None,
        subdomain: None,
        host_aliases: Vec::new(),
        dns: DnsSettings::default(),
        security: PodSecurity::default(),
        share_process_namespace: false,
        volumes: Vec::new(),
        services: Vec::new(),
        containers: vec![container],
        restart_policy: RestartPolicy::Never,
        termination_grace_seconds: 5,
        logs: Logs::Readable,
    }
}
