//! Which TEE a run has, and who signs its guest's reports.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use ah_evidence::{GuestPolicy, HostData, SOFTWARE_REPORT_PORT, Tee};
use ah_sandbox::{GuestFiles, SandboxConfig, VsockService};
use ah_software_tee::{SoftwareGuest, SoftwareTee};
use ah_vmm::{Accelerator, HostTee, SnpLaunch, TeeLaunch, VmError};
use anyhow::{Context, Result};

use crate::cli;
use crate::dirs::Dirs;
use crate::guest::{self, TRY_SOFTWARE};
use crate::ui::failure;

/// The TEE of a run. Real hardware is for machines that have it; nothing falls back to software on its own.
pub(crate) fn chosen(asked: cli::Tee) -> Result<Tee> {
    match asked {
        cli::Tee::Software => Ok(Tee::Software),
        asked => hardware(asked, ah_vmm::host_tee::find()),
    }
}

fn hardware(asked: cli::Tee, found: Result<HostTee, VmError>) -> Result<Tee> {
    let found = found.map_err(|error| failure(error, TRY_SOFTWARE))?;
    match (asked, found) {
        (cli::Tee::Auto | cli::Tee::Snp, HostTee::Snp) => Ok(Tee::Snp),
        (cli::Tee::Auto | cli::Tee::Tdx, HostTee::Tdx) => Err(failure(
            "tee tdx: no TDX guest is launched yet: its init has only a quote, which comes from the host, and refuses to believe it",
            TRY_SOFTWARE,
        )),
        (asked, found) => Err(failure(
            format!("tee {asked:?}: found {found:?} on this machine"),
            "--tee auto takes what is there",
        )),
    }
}

/// POLICY of the report that the guest is launched with.
pub(crate) fn guest_policy(tee: Tee) -> GuestPolicy {
    match tee {
        // A host with two threads a core starts no guest whose policy forbids them; an owner can demand it by claim.
        Tee::Snp => GuestPolicy::STRICT.with_smt(),
        Tee::Software | Tee::Tdx => GuestPolicy::STRICT,
    }
}

/// Who signs the guest's reports.
pub(crate) enum Processor {
    /// The CPU's own security processor.
    Snp,
    /// A process of the host that stands in for it.
    Software(SoftwareTee),
}

impl Processor {
    /// The one of `tee`.
    ///
    /// # Errors
    /// The software TEE's folder cannot be used, or guests do not run under KVM, which hardware needs.
    pub(crate) fn open(dirs: &Dirs, tee: Tee, accelerator: Accelerator) -> Result<Self> {
        match (tee, accelerator) {
            (Tee::Software, _) => Ok(Self::Software(SoftwareTee::open(dirs.software_tee())?)),
            (Tee::Snp, Accelerator::Kvm) => Ok(Self::Snp),
            (tee, accelerator) => Err(failure(
                format!(
                    "tee {tee}: found {accelerator} as what runs guests on this machine, expected kvm"
                ),
                TRY_SOFTWARE,
            )),
        }
    }

    /// Makes the sandbox's VM one of this TEE.
    ///
    /// # Errors
    /// A file of the guest image cannot be read, or the launch is refused.
    pub(crate) fn attach(
        self,
        sandbox: &mut SandboxConfig,
        host_data: HostData,
        policy: GuestPolicy,
    ) -> Result<()> {
        match self {
            Self::Snp => {
                let launch = SnpLaunch::on_this_cpu(*host_data.as_bytes(), policy.bits())?;
                sandbox.tee = TeeLaunch::Snp(launch);
            }
            Self::Software(tee) => {
                let (guest, vcpus) = (sandbox.guest.clone(), sandbox.vcpus);
                let launched =
                    Launched::begin(move || launch(&tee, &guest, vcpus, host_data, policy))?;
                sandbox.services.push(software_reports(launched));
            }
        }
        Ok(())
    }
}

/// The software TEE's measurement of a launch: while the VM boots, since nobody asks for a report before its kernel runs.
struct Launched {
    measuring: Mutex<Option<JoinHandle<Result<SoftwareGuest>>>>,
    measured: OnceLock<Option<SoftwareGuest>>,
}

impl Launched {
    fn begin(measure: impl FnOnce() -> Result<SoftwareGuest> + Send + 'static) -> Result<Self> {
        let thread = thread::Builder::new().name("software-tee".into());
        let measuring = thread.spawn(measure).context("starting the software TEE")?;
        Ok(Self { measuring: Mutex::new(Some(measuring)), measured: OnceLock::new() })
    }

    /// Waits for it; without a measurement there is no report, and the guest ends.
    fn guest(&self) -> Option<&SoftwareGuest> {
        let wait = || {
            let thread = self.measuring.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            match thread.join() {
                Ok(Ok(guest)) => Some(guest),
                Ok(Err(error)) => {
                    tracing::error!("the software TEE refuses the launch: {error:#}");
                    None
                }
                Err(_) => None,
            }
        };
        self.measured.get_or_init(wait).as_ref()
    }
}

/// Measures the very bytes that QEMU is given.
fn launch(
    tee: &SoftwareTee,
    files: &GuestFiles,
    vcpus: u32,
    host_data: HostData,
    policy: GuestPolicy,
) -> Result<SoftwareGuest> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (firmware, kernel, initrd) =
        (read(&files.firmware)?, read(&files.kernel)?, read(&files.initrd)?);
    let inputs = guest::launch_inputs(&firmware, &kernel, &initrd, &files.cmdline, vcpus);
    Ok(tee.launch(&inputs, host_data, policy)?)
}

fn software_reports(launched: Launched) -> VsockService {
    VsockService::new(SOFTWARE_REPORT_PORT, move |stream| {
        let Some(guest) = launched.guest() else { return };
        if let Err(error) = guest.serve(stream) {
            tracing::debug!(%error, "software report service");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: cli::Tee, found: Result<HostTee, VmError>, expect: Result<Tee, &str>) {
        let found = hardware(asked, found).map_err(|error| format!("{error:#}"));
        match (found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{found}"),
            (found, expect) => panic!("found {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn hardware_is_taken_where_it_is_and_never_replaced_by_software() {
        let none = || {
            let found = "sev_snp is absent".to_owned();
            Err(VmError::Unsupported { what: "confidential guest", found, expected: "Y" })
        };
        check(cli::Tee::Auto, Ok(HostTee::Snp), Ok(Tee::Snp));
        check(cli::Tee::Snp, Ok(HostTee::Snp), Ok(Tee::Snp));
        check(cli::Tee::Auto, none(), Err("sev_snp is absent"));
        check(cli::Tee::Auto, none(), Err(TRY_SOFTWARE));
        check(cli::Tee::Snp, none(), Err("sev_snp is absent"));
        check(cli::Tee::Snp, Ok(HostTee::Tdx), Err("found Tdx"));
        check(cli::Tee::Tdx, Ok(HostTee::Tdx), Err("refuses to believe it"));
    }

    #[test]
    fn attack_an_emulated_guest_is_called_hardware() {
        let dirs = Dirs::below(Path::new("/nonexistent"));
        assert!(Processor::open(&dirs, Tee::Snp, Accelerator::Kvm).is_ok());
        assert!(Processor::open(&dirs, Tee::Snp, Accelerator::Tcg).is_err());
    }
}
