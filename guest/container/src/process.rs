//! The processes that the agent is the parent of, and what became of them.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// Exits of processes nobody has claimed yet: a process may end before its maker has told the agent its pid.
const MAX_UNCLAIMED: usize = 1024;

/// How a process ended, as Kata reports it: the exit code, or 128 plus the signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(pub i32);

/// A process that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid in the guest.
    pub pid: i32,
    /// How it ended.
    pub status: ExitStatus,
}

/// Why a signal was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// No signal of this number.
    #[error("signal: found {found}, expected 1 to 64")]
    Number {
        /// The number asked for.
        found: u32,
    },
    /// The process has ended.
    #[error("process has ended")]
    Ended,
    /// The kernel refused.
    #[error("signal failed")]
    System(#[source] Errno),
}

/// Which processes live, which ended. Reaping and signalling both need `&mut self`: while a signal is being sent nothing is
/// reaped, so the pid still names the process it was looked up for.
#[derive(Debug, Default)]
pub struct ProcessTable {
    alive: BTreeMap<i32, ()>,
    unclaimed: VecDeque<Reaped>,
}

impl ProcessTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `pid` is a process of a container. Gives its end when it has ended already.
    pub fn claim(&mut self, pid: i32) -> Option<ExitStatus> {
        if let Some(at) = self.unclaimed.iter().position(|r| r.pid == pid) {
            return self.unclaimed.remove(at).map(|r| r.status);
        }
        self.alive.insert(pid, ());
        None
    }

    /// Whether `pid` was claimed and has not ended.
    pub fn is_alive(&self, pid: i32) -> bool {
        self.alive.contains_key(&pid)
    }

    /// Waits, without blocking, for every child that ended; gives those that were claimed.
    pub fn reap(&mut self) -> Vec<Reaped> {
        let mut claimed = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => signal.saturating_add(128),
                (None, None) => continue,
            };
            let reaped = Reaped { pid: pid.as_raw_nonzero().get(), status: ExitStatus(code) };
            if self.alive.remove(&reaped.pid).is_some() {
                claimed.push(reaped);
            } else {
                if self.unclaimed.len() >= MAX_UNCLAIMED {
                    self.unclaimed.pop_front();
                }
                self.unclaimed.push_back(reaped);
            }
        }
        claimed
    }

    /// Sends signal `number` to `pid`.
    ///
    /// # Errors
    /// [`SignalError`] when there is no such signal or process.
    pub fn signal(&mut self, pid: i32, number: u32) -> Result<(), SignalError> {
        let signal = parse_signal(number)?;
        if !self.is_alive(pid) {
            return Err(SignalError::Ended);
        }
        let pid = Pid::from_raw(pid).ok_or(SignalError::Ended)?;
        kill_process(pid, signal).map_err(|e| match e {
            Errno::SRCH => SignalError::Ended,
            other => SignalError::System(other),
        })
    }
}

fn parse_signal(number: u32) -> Result<Signal, SignalError> {
    i32::try_from(number)
        .ok()
        .and_then(Signal::from_named_raw)
        .ok_or(SignalError::Number { found: number })
}
