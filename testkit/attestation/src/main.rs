//! Figures of attestation and key release, measured at the programs that people run.
//!
//! Prints one row a figure; with `--json` one object a line: name, value, unit, reference, ratio, goal, met. Clients and services share this
//! machine's cores, so a service by itself does better than this says.
#![forbid(unsafe_code)]

mod keyservice;
mod release;
mod sidecar;
mod verification;

use std::path::PathBuf;

use ah_evidence::{GuestPolicy, HostData};
use ah_software_tee::{SoftwareGuest, SoftwareTee};
use anchorhold::guest;
use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The `anchorhold` command
    #[arg(long)]
    anchorhold: PathBuf,
    /// The sidecar
    #[arg(long)]
    sidecar: PathBuf,
}

/// A processor that is a program, and a guest on it.
pub(crate) struct Machine {
    pub(crate) tee: SoftwareTee,
    pub(crate) guest: SoftwareGuest,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tee = SoftwareTee::open(folder.path().join("tee"))?;
        let firmware = std::fs::read(guest::firmware(ah_evidence::Tee::Software)?)?;
        let inputs = guest::launch_inputs(&firmware, b"kernel", b"initrd", "cmdline", 1);
        let guest = tee.launch(&inputs, host_data(), GuestPolicy::STRICT)?;
        Ok(Self { tee, guest, _folder: folder })
    }
}

/// HOST_DATA of the guest.
pub(crate) fn host_data() -> HostData {
    HostData::of(b"initdata")
}

fn main() -> Result<()> {
    let options = Options::parse();
    let machine = Machine::new()?;
    let json = options.json;
    verification::measure(&machine, json)?;
    keyservice::measure_start(&options.anchorhold, json)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(release::measure(&options.anchorhold, &machine, json))?;
    sidecar::measure(&options.sidecar, &machine, json)
}
