//! The process between the launcher and the VM's programs: it ends them all when the launcher is gone.
//!
//! A parent-death signal belongs to the thread that made the child, and a launcher's threads come and go. So
//! a process with one thread makes the children: the running program, started again under a hidden
//! argument. It holds one end of a socket whose other end is the launcher's; whatever ends the launcher
//! closes it. What ends the supervisor itself kills its children by their parent-death signal.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, set_parent_process_death_signal},
};
use serde::{Deserialize, Serialize};

use crate::run_dir;

/// First argument of the supervisor.
pub(crate) const SUPERVISE: &str = "__anchorhold-vm-supervise";
/// First argument of the step that becomes one of the VM's programs.
const EXECUTE: &str = "__anchorhold-vm-execute";
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Time for a program to make its socket; it takes 3 ms on an idle machine.
const READY_LIMIT: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(1);

/// What the launcher asks for: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Removed in the end.
    pub(crate) run_dir: PathBuf,
    /// Started in this order, ended together.
    pub(crate) processes: Vec<ProcessPlan>,
}

/// One program of the VM.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessPlan {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Socket that it makes before the next program may start.
    pub(crate) ready_socket: Option<PathBuf>,
}

/// What the supervisor tells: one line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    Started { name: String, pid: u32 },
    Failed { name: String, reason: String },
    Ended { name: String, status: String, success: bool },
}

/// Takes over the process when it was started as a VM's supervisor; call it first in `main`, before any
/// thread and before arguments are read.
///
/// Returns at once in every other case.
pub fn run_if_asked() {
    let mut arguments = env::args_os().skip(1);
    let code = match arguments.next() {
        Some(first) if first == SUPERVISE => supervise(),
        Some(first) if first == EXECUTE => execute(arguments),
        _ => return,
    };
    std::process::exit(i32::from(code != ExitCode::SUCCESS));
}

/// Sets the parent-death signal and becomes the program.
fn execute(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        let _ = writeln!(io::stderr(), "setting the parent-death signal failed: {error}");
        return ExitCode::FAILURE;
    }
    // The supervisor may have died before the signal was set; then this process has another parent.
    if parent.is_none() || getppid().map(Pid::as_raw_nonzero).map(i32::from) != parent {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    let _ = writeln!(io::stderr(), "{}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}

fn supervise() -> ExitCode {
    match try_supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The pipe may have lost its reader with the launcher.
            let _ = writeln!(io::stderr(), "vm supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_supervise() -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = String::new();
    BufReader::new(&control).read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    let mut family = Family { control, children: Vec::new(), run_dir: plan.run_dir };
    let _held = run_dir::hold(&family.run_dir)?;
    // Leaving this function by any path ends the family.
    for process in &plan.processes {
        if let Err(error) = family.start(process) {
            family.tell(&Event::Failed { name: process.name.clone(), reason: error.to_string() });
            return Ok(());
        }
    }
    family.wait_for_first_end()
}

struct Member {
    name: String,
    child: Child,
    pidfd: OwnedFd,
}

struct Family {
    control: UnixStream,
    children: Vec<Member>,
    run_dir: PathBuf,
}

impl Family {
    fn start(&mut self, plan: &ProcessPlan) -> io::Result<()> {
        let child = Command::new(THIS_PROGRAM)
            .arg0(&plan.name)
            .arg(EXECUTE)
            .arg(std::process::id().to_string())
            .arg(&plan.program)
            .args(&plan.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let pid = child.id();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let mut child = child;
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        self.children.push(Member { name: plan.name.clone(), child, pidfd });
        if let Some(socket) = &plan.ready_socket {
            self.wait_for_socket(socket)?;
        }
        self.tell(&Event::Started { name: plan.name.clone(), pid });
        Ok(())
    }

    fn wait_for_socket(&self, socket: &Path) -> io::Result<()> {
        let started = Instant::now();
        while !socket.exists() {
            if started.elapsed() > READY_LIMIT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "made no socket in time"));
            }
            match self.poll(Some(READY_POLL))? {
                Wake::Nothing => {}
                Wake::LauncherGone => return Err(io::ErrorKind::ConnectionAborted.into()),
                Wake::Ended(_) => return Err(io::Error::other("ended before it made its socket")),
            }
        }
        Ok(())
    }

    /// Every program is needed: the first that ends, or the launcher's end, ends all.
    fn wait_for_first_end(&mut self) -> io::Result<()> {
        loop {
            match self.poll(None)? {
                Wake::Nothing => {}
                Wake::LauncherGone => return Ok(()),
                Wake::Ended(index) => {
                    let member = self.children.remove(index);
                    self.report_end(member);
                    return Ok(());
                }
            }
        }
    }

    fn poll(&self, limit: Option<Duration>) -> io::Result<Wake> {
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        fds.extend(self.children.iter().map(|member| PollFd::new(&member.pidfd, PollFlags::IN)));
        let limit =
            limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Wake::Nothing),
            Err(error) => return Err(error.into()),
        }
        let ended = fds.iter().skip(1).position(|fd| !fd.revents().is_empty());
        let told = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        Ok(match (ended, told) {
            (Some(index), _) => Wake::Ended(index),
            // The launcher says nothing after its plan: readable means closed.
            (None, true) => match (&self.control).read(&mut [0u8; 64]) {
                Ok(0) | Err(_) => Wake::LauncherGone,
                Ok(_) => Wake::Nothing,
            },
            (None, false) => Wake::Nothing,
        })
    }

    fn tell(&self, event: &Event) {
        // A launcher that is gone is noticed by poll().
        if let Ok(mut line) = serde_json::to_string(event) {
            line.push('\n');
            let _ = (&self.control).write_all(line.as_bytes());
        }
    }

    fn report_end(&self, mut member: Member) {
        let status = member.child.wait();
        let success = status.as_ref().is_ok_and(ExitStatus::success);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        self.tell(&Event::Ended { name: member.name, status, success });
    }
}

enum Wake {
    Nothing,
    LauncherGone,
    Ended(usize),
}

impl Drop for Family {
    fn drop(&mut self) {
        // Children that are not waited for keep their process id: kill() cannot hit a stranger.
        for member in self.children.iter_mut().rev() {
            let _ = member.child.kill();
        }
        let children = std::mem::take(&mut self.children);
        for member in children.into_iter().rev() {
            self.report_end(member);
        }
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_an_unknown_field_is_refused() {
        let plan = r#"{"run_dir":"/r","processes":[]}"#;
        assert!(serde_json::from_str::<Plan>(plan).is_ok());
        let more = r#"{"run_dir":"/r","processes":[],"keep":true}"#;
        assert!(serde_json::from_str::<Plan>(more).is_err());
    }
}
