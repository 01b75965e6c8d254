//! The runtime process: single-threaded, the only one that forks. It reads orders until its socket closes.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libcontainer::capabilities::drop_privileges;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::namespaces::Namespaces;
use libcontainer::oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxSeccomp, Process, Spec,
};
use libcontainer::syscall::syscall::{SyscallType, create_syscall};
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};

use crate::message::{Answer, MessageError, Order, receive, receive_record, send};

/// The argument with which the agent's binary becomes the runtime process.
pub const RUNTIME_SUBCOMMAND: &str = "runtime";

/// The argument with which it becomes the first process of a shared pid namespace.
const PAUSE_SUBCOMMAND: &str = "pause";

type Failure = Box<dyn std::error::Error>;

/// Runs the runtime process: standard input is the socket to the agent. Call it from `main` before any thread is started.
/// `argument` is the subcommand. Returns when the agent is gone.
pub fn runtime_process(argument: &str) -> ExitCode {
    if argument == PAUSE_SUBCOMMAND {
        return pause();
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> Result<(), Failure> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    loop {
        let (order, fds) = match receive::<Order>(&socket) {
            Ok(received) => received,
            Err(MessageError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let (answer, master) = match obey(order, fds) {
            Ok(done) => done,
            Err(e) => (Answer::failed(&chain(&*e)), None),
        };
        let beside: Vec<_> = master.iter().map(AsFd::as_fd).collect();
        send(&socket, &answer, &beside)?;
    }
}

fn obey(order: Order, fds: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>), Failure> {
    match order {
        Order::Sandbox { hostname, shared_pid } => {
            let first_pid = sandbox(&hostname, shared_pid)?;
            Ok((Answer::Sandbox { first_pid }, None))
        }
        Order::Settings { settings } => {
            crate::settings::set(&settings)?;
            Ok((Answer::Done, None))
        }
        Order::Create { id, bundle, state, terminal } => create(id, &bundle, &state, terminal, fds),
        Order::Start { id, state } => {
            Container::load(state.join(id))?.start()?;
            Ok((Answer::Done, None))
        }
        Order::Exec { id, process, state, terminal } => exec(id, process, &state, terminal, fds),
    }
}

/// Enters fresh ipc and uts namespaces and stays there: every container then joins this process's own.
fn sandbox(hostname: &str, shared_pid: bool) -> Result<Option<i32>, Failure> {
    unshare(&[LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts])?;
    if !hostname.is_empty() {
        create_syscall().set_hostname(hostname)?;
    }
    if !shared_pid {
        return Ok(None);
    }
    unshare(&[LinuxNamespaceType::Pid])?;
    let first = Command::new("/proc/self/exe")
        .arg(PAUSE_SUBCOMMAND)
        .env_clear()
        .stdin(Stdio::null())
        .spawn()?;
    let own = rustix::fs::open(
        "/proc/self/ns/pid",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::thread::move_into_link_name_space(
        own.as_fd(),
        Some(rustix::thread::LinkNameSpaceType::ProcessID),
    )?;
    Ok(i32::try_from(first.id()).ok())
}

fn unshare(types: &[LinuxNamespaceType]) -> Result<(), Failure> {
    let list: Vec<LinuxNamespace> = types
        .iter()
        .map(|t| LinuxNamespaceBuilder::default().typ(*t).build())
        .collect::<Result<_, _>>()?;
    Namespaces::try_from(Some(&list))?.apply_namespaces(|_| true)?;
    Ok(())
}

/// The first process of a shared pid namespace: reaps what is orphaned there, ignores every signal but SIGKILL from outside.
fn pause() -> ExitCode {
    // It goes with its maker: without a runtime process the sandbox makes no containers any more.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) => {}
            // No child: nothing can become one without passing through here, except by an exec's orphan; look again later.
            Err(_) => std::thread::sleep(std::time::Duration::from_secs(1)),
        }
    }
}

fn create(
    id: String,
    bundle: &Path,
    state: &Path,
    terminal: bool,
    fds: Vec<OwnedFd>,
) -> Result<(Answer, Option<OwnedFd>), Failure> {
    let streams = Streams::new(terminal, fds, state)?;
    let container = streams
        .give(
            ContainerBuilder::new(id, SyscallType::default())
                .with_root_path(state)?
                .with_executor(OwnExecutor::plain()),
        )
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    let pid = container.pid().ok_or("container has no process")?;
    Ok((Answer::Process { pid: pid.as_raw() }, streams.master()?))
}

fn exec(
    id: String,
    process: PathBuf,
    state: &Path,
    terminal: bool,
    fds: Vec<OwnedFd>,
) -> Result<(Answer, Option<OwnedFd>), Failure> {
    let container = Container::load(state.join(&id))?;
    let spec = Spec::load(container.bundle().join("config.json"))?;
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().clone());
    let executor = match seccomp {
        Some(filter) => OwnExecutor::new(filter, &process)?,
        None => OwnExecutor::plain(),
    };
    let streams = Streams::new(terminal, fds, state)?;
    let pid = streams
        .give(
            ContainerBuilder::new(id, SyscallType::default())
                .with_root_path(state)?
                .with_executor(executor),
        )
        .as_tenant()
        .with_process(Some(process))
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    Ok((Answer::Process { pid: pid.as_raw() }, streams.master()?))
}

/// A new process's streams: three descriptors from the agent, or a listener that its terminal's master side comes to.
struct Streams {
    fds: Vec<OwnedFd>,
    console: Option<(UnixListener, PathBuf)>,
}

impl Streams {
    fn new(terminal: bool, fds: Vec<OwnedFd>, state: &Path) -> Result<Self, Failure> {
        let expected = if terminal { 0 } else { 3 };
        if fds.len() != expected {
            return Err(format!("descriptors: found {}, expected {expected}", fds.len()).into());
        }
        if !terminal {
            return Ok(Self { fds, console: None });
        }
        std::fs::create_dir_all(state)?;
        let path = state.join(".console");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok(Self { fds, console: Some((listener, path)) })
    }

    fn give(&self, builder: ContainerBuilder) -> ContainerBuilder {
        let mut copies = self.fds.iter().filter_map(|fd| fd.try_clone().ok());
        match (copies.next(), copies.next(), copies.next(), &self.console) {
            (Some(stdin), Some(stdout), Some(stderr), _) => {
                builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
            }
            (_, _, _, Some((_, path))) => builder.with_console_socket(Some(path.clone())),
            _ => builder,
        }
    }

    /// The master side, which the new process has sent before its maker returned.
    fn master(self) -> Result<Option<OwnedFd>, Failure> {
        let Some((listener, path)) = self.console else {
            return Ok(None);
        };
        listener.set_nonblocking(true)?;
        let accepted = listener.accept();
        std::fs::remove_file(&path)?;
        let (stream, _) = accepted?;
        let mut name = [0u8; 256];
        let (_, mut fds) = receive_record(&stream, &mut name)?;
        fds.pop().map(Some).ok_or_else(|| "terminal was not handed over".into())
    }
}

/// Runs a process's program, an exec's under the container's seccomp filter. libcontainer leaves the filter out of the spec that it makes
/// for an exec, so a process entered later would have more system calls than the container's first one.
///
/// Loading a filter takes CAP_SYS_ADMIN or no-new-privileges (seccomp(2)). An exec without the latter keeps CAP_SYS_ADMIN until the
/// filter is loaded, in this program's own code, and gives it up before the container's program runs.
#[derive(Clone)]
struct OwnExecutor {
    filter: Option<LinuxSeccomp>,
    /// The sets to fall back to once the filter is loaded.
    capabilities: Option<LinuxCapabilities>,
}

impl OwnExecutor {
    /// Without a filter of its own: libcontainer loads that of a container's first process.
    fn plain() -> Self {
        Self { filter: None, capabilities: None }
    }

    /// Adds the capability to the process file where it is needed.
    fn new(filter: LinuxSeccomp, file: &Path) -> Result<Self, Failure> {
        let mut process: Process = serde_json::from_slice(&std::fs::read(file)?)?;
        let mut capabilities = None;
        if process.no_new_privileges() != Some(true) {
            let wanted = process.capabilities().clone().unwrap_or_default();
            let mut more = wanted.clone();
            let with = |set: &Option<Capabilities>| {
                let mut set = set.clone().unwrap_or_default();
                set.insert(Capability::SysAdmin);
                Some(set)
            };
            more.set_effective(with(wanted.effective()));
            more.set_permitted(with(wanted.permitted()));
            process.set_capabilities(Some(more));
            std::fs::write(file, serde_json::to_vec(&process)?)?;
            capabilities = Some(wanted);
        }
        Ok(Self { filter: Some(filter), capabilities })
    }

    fn load(&self) -> Result<(), Failure> {
        if let Some(filter) = &self.filter {
            libcontainer::seccomp::initialize_seccomp(filter)?;
        }
        if let Some(wanted) = &self.capabilities {
            drop_privileges(wanted, create_syscall().as_ref())?;
        }
        Ok(())
    }
}

impl Executor for OwnExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        self.load().map_err(|e| ExecutorError::Other(chain(&*e)))?;
        let arguments = spec.process().as_ref().and_then(|p| p.args().as_deref());
        let (program, rest) =
            arguments.and_then(<[String]>::split_first).ok_or(ExecutorError::InvalidArg)?;
        // exec through std, which gives SIGPIPE and the signal mask their defaults first: this program's own runtime ignores
        // SIGPIPE, and a shell pipeline whose reader is gone would then never end.
        let error = Command::new(program).args(rest).exec();
        Err(ExecutorError::Other(format!("executing {program:?}: {error}")))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        DefaultExecutor {}.setup_envs(envs)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
