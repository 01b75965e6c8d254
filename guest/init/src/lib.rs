//! PID 1: mounts, modules, entropy, the HOST_DATA check against the initdata, then the agent.
//!
//! The initrd is measured, so the code here, the agent, the modules and the command line are what the owner
//! expects. The disks, the answers over vsock and the time are the host's. The order of events:
//!
//! 1. proc, sys, dev, a tmpfs that becomes the root; the command line, strictly;
//! 2. kernel modules, and then no more of them;
//! 3. the random generator has a seed that the host does not know;
//! 4. the initdata disk, found by its magic, and a report from the source that the command line names;
//! 5. HOST_DATA equals the digest of the initdata, or the machine is turned off;
//! 6. the agent, with that initdata; when it ends, the machine is turned off.
#![forbid(unsafe_code)]

pub mod binding;
pub mod command_line;
mod disk;
mod error;
mod modules;
mod root;
mod supervise;

use std::path::Path;
use std::time::Instant;

use ah_guest_sys::{kernel, random};
use ah_tee::{RawReport, Tee};

pub use error::InitError;
pub use supervise::Ending;

use command_line::LogLevel;

/// Brings the guest up, runs the agent and returns when it has ended.
///
/// # Errors
/// [`InitError`]: the guest must not run. The caller turns the machine off.
pub fn run() -> Result<Ending, InitError> {
    let start = Instant::now();
    root::mount_new_root()?;
    let command_line = root::command_line()?;
    let tee = command_line.tee;
    let stage = |name: &str| {
        if command_line.log == LogLevel::Debug {
            let ms = start.elapsed().as_millis();
            kernel::console_line(&format!("anchorhold-init: {name} after {ms} ms"));
        }
    };
    let loading = modules::start(tee)?;
    root::enter()?;
    ensure_entropy()?;
    loading.finish()?;
    stage("modules loaded");
    root::mount_the_rest(tee)?;
    let initdata = disk::initdata(Path::new("/sys/block"), Path::new("/dev"))?;
    stage("initdata read");
    let (report, nonce) = report(tee)?;
    let bound = binding::bound(tee, &report, &nonce)?;
    let policy = binding::check(&bound, initdata.as_ref())?;
    stage("initdata accepted");
    supervise::run_agent(&command_line, &policy)
}

fn ensure_entropy() -> Result<(), InitError> {
    if !random::is_seeded() {
        random::seed_from_cpu().map_err(InitError::Entropy)?;
    }
    if random::is_seeded() { Ok(()) } else { Err(InitError::NoSeed) }
}

/// A report over fresh bytes, and those bytes: an old report cannot answer for this boot.
fn report(tee: Tee) -> Result<(RawReport, [u8; ah_tee::REPORT_DATA_BYTES]), InitError> {
    let mut nonce = [0; ah_tee::REPORT_DATA_BYTES];
    random::fill(&mut nonce).map_err(InitError::Entropy)?;
    let report = ah_tee::report_source(tee).and_then(|source| source.report(&nonce));
    report.map(|report| (report, nonce)).map_err(InitError::Report)
}
