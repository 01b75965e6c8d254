//! From configuration and sandbox to the guest that is started: files, size, policy, services.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ah_evidence::{GuestPolicy, HostData};
use ah_launch::LaunchInputs;
use ah_pod::RuntimeHints;
use ah_policy::{
    FRAGMENT_ANNOTATION, INITDATA_ANNOTATION, InitData, PolicyDocument, fragments_from_annotation,
};
use ah_sandbox::{GuestConfig, GuestFiles, ScratchConfig, VsockService};
use ah_software_tee::SoftwareTee;
use ah_vmm::{Accelerator, Network, SnpLaunch, TeeLaunch, Tools};

use crate::config::{Config, Tee};
use crate::convert::{Sandbox, Sizing, Spec};
use crate::network::{PodNetwork, TAP};
use crate::{ShimError, keys};

/// The vCPU model whose save area is measured: EPYC, the model that QEMU is asked for on SEV-SNP.
const VCPU_SIG_EPYC: u32 = 0x0080_0f12;
/// SEV_FEATURES of the save area: SEV-SNP active and nothing else.
const SEV_FEATURES_SNP: u64 = 1;
/// On the measured command line of a guest without confidentiality (the guest's init knows the word): whatever policy such a pod
/// brings, its report is not one that an owner's key waits for.
const ISOLATION_ONLY: &str = " anchorhold.confidential=false";
/// Sockets of running VMs, and what was found out about the machine.
const RUN_BASE: &str = "/run/anchorhold";
/// Least memory for containers, MiB.
const LEAST_MIB: u64 = 32;

/// Puts the guest of a pod together.
pub(crate) async fn guest(
    config: &Config,
    spec: &Spec,
    sandbox: &Sandbox,
    network: Option<&PodNetwork>,
) -> Result<GuestConfig, ShimError> {
    let document = document(config, spec.annotations())?;
    let tools = Tools::find(&config.tools)?;
    let run_base = PathBuf::from(RUN_BASE);
    fs::create_dir_all(&run_base).map_err(ShimError::file("making", &run_base))?;
    let accelerator = ah_vmm::accelerator::choose(&tools.qemu, &run_base).await?;
    let files = files(config)?;
    let vcpus = vcpus(config, &sandbox.sizing, &sandbox.hints.runtime);
    let host_data = document.host_data_snp()?;
    let mut services = key_service(config);
    let tee = match config.tee {
        Tee::Software => {
            tracing::info!("tee: software (not confidential)");
            services.push(software_reports(config, &files, vcpus, host_data)?);
            TeeLaunch::None
        }
        Tee::Snp => snp(host_data, accelerator)?,
    };
    Ok(GuestConfig {
        initdata_disk: match &document {
            PolicyDocument::InitData(initdata) => Some(initdata.to_disk()),
            PolicyDocument::Aks(_) => None,
        },
        policy_text: match document {
            PolicyDocument::InitData(_) => None,
            PolicyDocument::Aks(policy) => Some(policy.policy().to_owned()),
        },
        fragments: fragments(spec.annotations())?,
        files,
        services,
        tools,
        accelerator,
        tee,
        vcpus,
        memory_mib: memory_mib(config, &sandbox.sizing, &sandbox.hints.runtime),
        scratch: scratch(config, sandbox),
        network: network.map_or(Network::None, |found| Network::Tap {
            namespace: sandbox.network_namespace.clone().unwrap_or_default(),
            name: TAP.into(),
            hardware_address: found.hardware_address.clone(),
        }),
        boot_limit: config.boot_limit(),
        run_base,
    })
}

/// The disk for what containers write. The kubelet keeps limits to itself; those of volumes are in the pod's hints.
fn scratch(config: &Config, sandbox: &Sandbox) -> Option<ScratchConfig> {
    (config.scratch_mib > 0).then(|| ScratchConfig {
        folder: config.scratch_folder.clone(),
        shared_bytes: config.scratch_mib << 20,
        limited_bytes: sandbox.hints.runtime.limited_bytes(),
    })
}

/// The pod's policy. Without one a confidential pod is refused; another gets one that allows everything.
fn document(
    config: &Config,
    annotations: &BTreeMap<String, String>,
) -> Result<PolicyDocument, ShimError> {
    match PolicyDocument::from_annotations(annotations) {
        Err(ah_policy::DocumentError::Annotations { found: 0 }) => match config.confidential {
            true => Err(ShimError::NoPolicy { expected: INITDATA_ANNOTATION }),
            false => Ok(PolicyDocument::InitData(InitData::build(&allow_all(), &BTreeMap::new())?)),
        },
        other => Ok(other?),
    }
}

/// Fragments of the policy that the pod brings.
fn fragments(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, ShimError> {
    let found = annotations.get(FRAGMENT_ANNOTATION);
    Ok(found.map(|value| fragments_from_annotation(value)).transpose()?.unwrap_or_default())
}

/// Isolation without confidentiality: the guest does what the node asks of it.
fn allow_all() -> String {
    let rules = ah_agent_api::request_names().map(|name| format!("default {name} := true\n"));
    format!(
        "package agent_policy\n\ndefault AllowRequestsFailingPolicy := false\n{}",
        rules.collect::<String>()
    )
}

fn files(config: &Config) -> Result<GuestFiles, ShimError> {
    let path = config.guest.join(format!("cmdline.{}", config.tee.name()));
    let mut cmdline = fs::read_to_string(&path).map_err(ShimError::file("reading", &path))?;
    if !config.confidential {
        cmdline.push_str(ISOLATION_ONLY);
    }
    Ok(GuestFiles {
        kernel: config.guest.join("vmlinuz"),
        initrd: config.guest.join("initrd"),
        cmdline,
        firmware: match (&config.firmware, config.tee) {
            (Some(path), _) => path.clone(),
            (None, Tee::Software) => ah_vmm::firmware::find_for_bridges()?,
            (None, Tee::Snp) => ah_vmm::firmware::find_snp()?,
        },
    })
}

/// A guest whose reports are the processor's own.
fn snp(host_data: HostData, accelerator: Accelerator) -> Result<TeeLaunch, ShimError> {
    let Accelerator::Kvm = accelerator else {
        return Err(ShimError::Hardware { tee: Tee::Snp.name(), found: accelerator.to_string() });
    };
    // As `anchorhold run` launches them: a host with two threads a core starts no guest whose policy forbids them.
    let policy = GuestPolicy::STRICT.with_smt();
    Ok(TeeLaunch::Snp(SnpLaunch::on_this_cpu(*host_data.as_bytes(), policy.bits())?))
}

/// The report service of the software TEE, which measures the very files that QEMU is given.
fn software_reports(
    config: &Config,
    files: &GuestFiles,
    vcpus: u32,
    host_data: HostData,
) -> Result<VsockService, ShimError> {
    let read = |path: &Path| fs::read(path).map_err(ShimError::file("reading", path));
    let (firmware, kernel, initrd) =
        (read(&files.firmware)?, read(&files.kernel)?, read(&files.initrd)?);
    let inputs = LaunchInputs {
        firmware: &firmware,
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &files.cmdline,
        vcpus,
        vcpu_sig: VCPU_SIG_EPYC,
        sev_features: SEV_FEATURES_SNP,
    };
    let tee = SoftwareTee::open(&config.software_tee)?;
    let reports = tee.launch(&inputs, host_data, GuestPolicy::STRICT)?;
    Ok(VsockService::new(ah_agent_api::ports::SOFTWARE_REPORT, move |stream| {
        if let Err(error) = reports.serve(stream) {
            tracing::debug!(%error, "software report service");
        }
    }))
}

/// The guest's way to the key service.
fn key_service(config: &Config) -> Vec<VsockService> {
    let service = config.key_service.clone().map(|address| {
        let carry = move |stream| keys::carry(stream, &address);
        VsockService::new(ah_agent_api::ports::KEY_RELEASE, carry)
    });
    service.into_iter().collect()
}

/// The pod's own sum or the kubelet's of limits, whichever is more, rounded up; the configured number where there is neither.
fn vcpus(config: &Config, sizing: &Sizing, hints: &RuntimeHints) -> u32 {
    let quota = u64::try_from(sizing.cpu_quota_us).unwrap_or_default();
    let limited = match sizing.cpu_period_us {
        0 => 0,
        period => quota.div_ceil(period),
    };
    match limited.max(hints.cpu_milli.div_ceil(1_000)) {
        0 => config.vcpus,
        whole => u32::try_from(whole).unwrap_or(255).min(255),
    }
}

fn memory_mib(config: &Config, sizing: &Sizing, hints: &RuntimeHints) -> u32 {
    let default = u64::from(config.memory_mib);
    let limit = u64::try_from(sizing.memory_bytes).unwrap_or_default().div_ceil(1 << 20);
    let open = if hints.memory_is_open { default } else { 0 };
    let own = match hints.memory_bytes.div_ceil(1 << 20) {
        0 => 0,
        own => own.saturating_add(open),
    };
    let containers = match limit.max(own) {
        0 => default,
        known => known.max(LEAST_MIB),
    };
    let encrypted = config.confidential && config.tee != Tee::Software;
    let size = ah_sandbox::vm_memory_mib(containers, config.overhead_mib, encrypted);
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            confidential: true,
            tee: Tee::Software,
            guest: "/g".into(),
            firmware: None,
            software_tee: "/s".into(),
            key_service: None,
            vcpus: 2,
            memory_mib: 256,
            overhead_mib: 100,
            scratch_folder: "/d".into(),
            scratch_mib: 1,
            boot_limit_seconds: 60,
            metrics_events: "/e".into(),
            tools: vec![],
        }
    }

    #[test]
    fn size_is_the_sum_of_limits_rounded_up() {
        let check = |cpu_quota_us, cpu_period_us, memory_bytes, expect| {
            let sizing = Sizing { cpu_quota_us, cpu_period_us, memory_bytes };
            let hints = RuntimeHints::default();
            let found = (vcpus(&config(), &sizing, &hints), memory_mib(&config(), &sizing, &hints));
            assert_eq!(found, expect);
        };
        check(0, 0, 0, (2, 364));
        check(-1, 100_000, 0, (2, 364));
        check(150_000, 100_000, 64 << 20, (2, 166));
        check(50_000, 100_000, (64 << 20) + 1, (1, 167));
        check(1_000, 100_000, 1, (1, 133));
        check(0, 0, 8 << 30, (2, 8192 + 100 + 256 + 64));
    }

    /// What the pod says itself counts with requests, and where the kubelet says nothing.
    #[test]
    fn size_is_the_pods_own_where_that_is_more() {
        let check = |cpu_milli, memory_bytes, memory_is_open, expect| {
            let hints =
                RuntimeHints { cpu_milli, memory_bytes, memory_is_open, ..Default::default() };
            let kubelets =
                Sizing { cpu_quota_us: 150_000, cpu_period_us: 100_000, memory_bytes: 64 << 20 };
            let of = |sizing: &Sizing| {
                (vcpus(&config(), sizing, &hints), memory_mib(&config(), sizing, &hints))
            };
            assert_eq!((of(&Sizing::default()), of(&kubelets)), expect);
        };
        check(0, 0, false, ((2, 364), (2, 166)));
        check(2_001, 128 << 20, false, ((3, 232), (3, 232)));
        check(500, 128 << 20, true, ((1, 496), (2, 496)));
        check(u64::MAX, 1, false, ((255, 133), (255, 166)));
    }

    #[test]
    fn attack_a_guest_for_isolation_alone_measures_as_a_confidential_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vmlinuz", "initrd", "bios"] {
            fs::write(folder.path().join(name), vec![1; 4096]).unwrap();
        }
        fs::write(folder.path().join("cmdline.software"), "quiet anchorhold.tee=software").unwrap();
        let measurement = |confidential| {
            let firmware = Some(folder.path().join("bios"));
            let config = Config { confidential, guest: folder.path().into(), firmware, ..config() };
            let files = files(&config).unwrap();
            let read = |path: &Path| fs::read(path).unwrap();
            let (firmware, kernel, initrd) =
                (read(&files.firmware), read(&files.kernel), read(&files.initrd));
            let inputs = LaunchInputs {
                firmware: &firmware,
                kernel: &kernel,
                initrd: &initrd,
                cmdline: &files.cmdline,
                vcpus: 1,
                vcpu_sig: VCPU_SIG_EPYC,
                sev_features: SEV_FEATURES_SNP,
            };
            ah_launch::measure(&inputs).unwrap()
        };
        assert_eq!(measurement(true), measurement(true));
        assert_ne!(measurement(true), measurement(false));
    }

    #[test]
    fn attack_a_guest_of_hardware_does_not_start_where_the_machine_has_none() {
        let error = snp(HostData::new([7; 32]), Accelerator::Tcg).unwrap_err();
        assert!(error.to_string().contains("expected kvm"), "{error}");
    }

    #[test]
    fn the_command_line_is_that_of_the_tee() {
        let folder = tempfile::tempdir().unwrap();
        for tee in [Tee::Software, Tee::Snp] {
            let line = format!("quiet anchorhold.tee={}", tee.name());
            fs::write(folder.path().join(format!("cmdline.{}", tee.name())), &line).unwrap();
            let firmware = Some(folder.path().join("bios"));
            let config = Config { tee, guest: folder.path().into(), firmware, ..config() };
            assert_eq!(files(&config).unwrap().cmdline, line);
        }
    }

    #[test]
    fn attack_confidential_pods_do_not_run_without_their_policy() {
        let none = BTreeMap::new();
        let error = document(&config(), &none).unwrap_err();
        assert!(matches!(error, ShimError::NoPolicy { .. }));
        assert!(error.to_string().contains(INITDATA_ANNOTATION));
        let open = Config { confidential: false, ..config() };
        assert!(document(&open, &none).is_ok());
        let broken = BTreeMap::from([(INITDATA_ANNOTATION.to_owned(), "!".to_owned())]);
        assert!(document(&open, &broken).is_err());
    }
}
