//! PID 1: mounts, modules, entropy, the HOST_DATA check against the initdata, then the agent.
//!
//! The initrd is measured, so the code here, the agent, the modules and the command line are what the owner
//! expects. The disks, the answers over vsock and the time are the host's. The order of events:
//!
//! 1. proc, sys, dev, a tmpfs that becomes the root; the command line, strictly;
//! 2. kernel modules, those for a scratch disk only where there is one; the agent loads what the pod's policy has it asked for, and lets the kernel take
//!    no more before it makes a container;
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
    root::hurry();
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
    ensure_entropy(tee)?;
    let scratch = loading.finish()?;
    stage("modules loaded");
    root::mount_the_rest(tee)?;
    let initdata = disk::initdata(Path::new("/sys/block"), Path::new("/dev"))?;
    stage("initdata read");
    let (report, nonce) = report(tee)?;
    let bound = binding::bound(tee, &report, &nonce)?;
    let policy = binding::check(&bound, initdata.as_ref())?;
    stage("initdata accepted");
    supervise::run_agent(&command_line, &policy, scratch.as_ref())
}

/// The kernel also counts what the host gave it, through the boot loader or virtio-rng, so that it has a seed says nothing: the
/// CPU's is added always.
fn ensure_entropy(tee: Tee) -> Result<(), InitError> {
    let from_cpu = random::seed_from_cpu();
    match seeded(tee, from_cpu, random::is_seeded()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(InitError::NoSeed),
        Err(error) => Err(InitError::Entropy(error)),
    }
}

/// Only a guest that is not confidential anyway may do without the CPU's seed: the machine may be emulated, without RDRAND.
fn seeded<E>(tee: Tee, from_cpu: Result<(), E>, kernel_says_so: bool) -> Result<bool, E> {
    match from_cpu {
        Err(error) if tee != Tee::Software || !kernel_says_so => Err(error),
        _ => Ok(kernel_says_so),
    }
}

/// A report over fresh bytes, and those bytes: an old report cannot answer for this boot.
fn report(tee: Tee) -> Result<(RawReport, [u8; ah_tee::REPORT_DATA_BYTES]), InitError> {
    let mut nonce = [0; ah_tee::REPORT_DATA_BYTES];
    random::fill(&mut nonce).map_err(InitError::Entropy)?;
    let report = ah_tee::report_source(tee).and_then(|source| source.report(&nonce));
    report.map(|report| (report, nonce)).map_err(InitError::Report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_seed_of_the_random_generator_known_to_the_host() {
        let (cpu, no_cpu) = (Ok::<(), &str>(()), Err("no rdrand"));
        for tee in [Tee::Snp, Tee::Tdx, Tee::AzureVtpm] {
            assert_eq!(seeded(tee, no_cpu, true), Err("no rdrand"), "{tee}: the host's seed only");
            assert_eq!(seeded(tee, cpu, true), Ok(true));
            assert_eq!(seeded(tee, cpu, false), Ok(false));
        }
        assert_eq!(seeded(Tee::Software, no_cpu, true), Ok(true));
        assert_eq!(seeded(Tee::Software, no_cpu, false), Err("no rdrand"));
    }
}
