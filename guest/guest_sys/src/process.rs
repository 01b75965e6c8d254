//! Processes: reaping as PID 1 or subreaper, pidfds, signals.

use std::os::fd::OwnedFd;

pub use rustix::process::{Pid, Signal, WaitStatus};
use rustix::process::{PidfdFlags, WaitOptions};

use crate::SysError;

/// Waits for any child to end and takes it out of the process table.
///
/// `None`: there is no child at all.
///
/// # Errors
/// The kernel's refusal of wait4(2).
pub fn reap() -> Result<Option<(Pid, WaitStatus)>, SysError> {
    wait(WaitOptions::empty())
}

/// As [`reap`], without waiting: `None` when no child has ended.
///
/// # Errors
/// The kernel's refusal of wait4(2).
pub fn reap_ended() -> Result<Option<(Pid, WaitStatus)>, SysError> {
    wait(WaitOptions::NOHANG)
}

fn wait(options: WaitOptions) -> Result<Option<(Pid, WaitStatus)>, SysError> {
    loop {
        match rustix::process::wait(options) {
            Ok(ended) => return Ok(ended),
            Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(SysError::new("wait for", "any child", e)),
        }
    }
}

/// Orphans below this process become its children instead of PID 1's.
///
/// # Errors
/// The kernel's refusal of prctl(2).
pub fn become_subreaper() -> Result<(), SysError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| SysError::new("become subreaper", "of this process", e))
}

/// A handle that keeps naming this process after its number was given to another one.
///
/// # Errors
/// The process is gone, or the kernel's refusal of pidfd_open(2).
pub fn pidfd(pid: Pid) -> Result<OwnedFd, SysError> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|e| SysError::new("open process", pid.as_raw_nonzero().to_string(), e))
}

/// Keeps other processes of the same user from reading this one's memory (ptrace, /proc/pid/mem, core dumps).
///
/// # Errors
/// The kernel's refusal of prctl(2).
pub fn forbid_dumping() -> Result<(), SysError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| SysError::new("forbid dumping", "of this process", e))
}
