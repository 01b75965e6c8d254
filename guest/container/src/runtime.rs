//! The agent's end of the runtime process.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::id::{ContainerId, ExecId};
use crate::layout::Layout;
use crate::message::{Answer, MessageError, Order, receive, send};
use crate::runtime_process::RUNTIME_SUBCOMMAND;
use crate::stdio::ChildStdio;

/// Why the runtime process did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It could not be started.
    #[error("runtime process failed to start")]
    Spawn(#[source] std::io::Error),
    /// Its socket could not be made.
    #[error("runtime socket failed")]
    Socket(#[source] rustix::io::Errno),
    /// An order or its answer was lost.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// libcontainer refused or failed.
    #[error("runtime: {reason}")]
    Refused {
        /// Its text; it may hold content of the spec.
        reason: String,
    },
    /// An answer of another kind than asked for.
    #[error("runtime answered out of turn")]
    OutOfTurn,
}

/// A handle on the runtime process. Orders are carried out one at a time; the calls block.
#[derive(Debug)]
pub struct Runtime {
    socket: Mutex<OwnedFd>,
    pid: u32,
    state: PathBuf,
}

impl Runtime {
    /// Starts the runtime process by executing this binary again with the subcommand [`RUNTIME_SUBCOMMAND`], its socket as
    /// standard input. Without environment: nothing a container sees may come from the agent's.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot be started.
    pub fn spawn(layout: &Layout) -> Result<Self, RuntimeError> {
        Self::spawn_command(Command::new("/proc/self/exe"), layout)
    }

    /// As [`Runtime::spawn`] with another program that calls [`crate::runtime_process`]; for tests.
    ///
    /// # Errors
    /// [`RuntimeError`] when it cannot be started.
    pub fn spawn_command(mut command: Command, layout: &Layout) -> Result<Self, RuntimeError> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(RuntimeError::Socket)?;
        let child = command
            .arg(RUNTIME_SUBCOMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(RuntimeError::Spawn)?;
        Ok(Self { socket: Mutex::new(ours), pid: child.id(), state: layout.runtime_state() })
    }

    /// The runtime process's pid. When it is reaped no further container can be made.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes the sandbox's shared namespaces and hostname; gives the first process of the shared pid namespace if there is one.
    ///
    /// # Errors
    /// [`RuntimeError`] when the process refuses or is gone.
    pub fn sandbox(&self, hostname: &str, shared_pid: bool) -> Result<Option<i32>, RuntimeError> {
        let order = Order::Sandbox { hostname: hostname.to_owned(), shared_pid };
        match self.ask(&order, &[])? {
            (Answer::Sandbox { first_pid }, _) => Ok(first_pid),
            _ => Err(RuntimeError::OutOfTurn),
        }
    }

    /// Sets kernel settings in the sandbox's namespaces, after [`Runtime::sandbox`].
    ///
    /// # Errors
    /// [`RuntimeError`] when one is refused or the process is gone.
    pub fn settings(&self, settings: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        match self.ask(&Order::Settings { settings: settings.clone() }, &[])? {
            (Answer::Done, _) => Ok(()),
            _ => Err(RuntimeError::OutOfTurn),
        }
    }

    /// Creates the container whose bundle lies at `bundle`. Without `stdio` the process gets a terminal, whose master side is
    /// returned beside its pid.
    ///
    /// # Errors
    /// [`RuntimeError`] when the process refuses or is gone.
    pub fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        stdio: Option<ChildStdio>,
    ) -> Result<(i32, Option<OwnedFd>), RuntimeError> {
        let order = Order::Create {
            id: id.to_string(),
            bundle: bundle.to_owned(),
            state: self.state.clone(),
            terminal: stdio.is_none(),
        };
        self.ask_process(&order, stdio)
    }

    /// Lets the container's first process go.
    ///
    /// # Errors
    /// [`RuntimeError`] when the process refuses or is gone.
    pub fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let order = Order::Start { id: id.to_string(), state: self.state.clone() };
        match self.ask(&order, &[])? {
            (Answer::Done, _) => Ok(()),
            _ => Err(RuntimeError::OutOfTurn),
        }
    }

    /// Starts one more process in the container, as the process file of `exec` says.
    ///
    /// # Errors
    /// [`RuntimeError`] when the process refuses or is gone.
    pub fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        layout: &Layout,
        stdio: Option<ChildStdio>,
    ) -> Result<(i32, Option<OwnedFd>), RuntimeError> {
        let order = Order::Exec {
            id: id.to_string(),
            process: layout.exec_file(id, exec),
            state: self.state.clone(),
            terminal: stdio.is_none(),
        };
        self.ask_process(&order, stdio)
    }

    fn ask_process(
        &self,
        order: &Order,
        stdio: Option<ChildStdio>,
    ) -> Result<(i32, Option<OwnedFd>), RuntimeError> {
        let fds: Vec<BorrowedFd<'_>> = stdio
            .iter()
            .flat_map(|s| [s.stdin.as_fd(), s.stdout.as_fd(), s.stderr.as_fd()])
            .collect();
        match self.ask(order, &fds)? {
            (Answer::Process { pid }, mut fds) => Ok((pid, fds.pop())),
            _ => Err(RuntimeError::OutOfTurn),
        }
    }

    fn ask(
        &self,
        order: &Order,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        send(&*socket, order, fds)?;
        match receive(&*socket)? {
            (Answer::Failed { reason }, _) => Err(RuntimeError::Refused { reason }),
            answer => Ok(answer),
        }
    }
}
