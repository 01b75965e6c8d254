//! Creating, starting and removing containers, and the processes in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ah_agent_api::agent::{CreateContainerRequest, ExecProcessRequest};
use ah_agent_api::oci;
use ah_container::{
    Cgroup, ContainerId, ExecContext, ExecId, SpecContext, container_spec, exec_process,
    home_directory, make_working_directory, stdio_pipes,
};
use ah_rootfs::VerifiedRoot;
use tokio::sync::watch;

use super::checks::{Kind, Plan, plan};
use super::copy_file::{copies_are_gone, remove_copies};
use super::io::Io;
use super::sealed;
use super::termination::copied_files;
use super::{Body, Container, Guest, MAX_PROCESSES, Process};
use crate::console::{Level, tell};
use crate::failure::Failure;
use crate::keys::{Keys, WantedKey};

/// How long removal waits for a killed container's first process to be reaped.
const END_TIMEOUT: Duration = Duration::from_secs(10);

impl Guest {
    /// Carries out a permitted CreateContainer. Blocks. Undoes everything when it fails.
    pub(super) fn create(
        &self,
        request: &CreateContainerRequest,
        keys: &Keys,
    ) -> Result<(), Failure> {
        let sandbox = self.sandbox()?;
        let plan = plan(request, &self.layout)?;
        if self.containers().contains_key(&plan.id) {
            return Err(Failure::Exists { what: format!("container {}", plan.id) });
        }
        if self.given_up().contains(&plan.id) {
            return Err(copies_are_gone(&plan.id));
        }
        if request.sandbox_pidns != sandbox.shared_pid.is_some() && plan.kind == Kind::Workload {
            return Err(Failure::refused(
                "sandbox_pidns: found another value than CreateSandbox had",
            ));
        }
        let id = plan.id.clone();
        let container = match plan.kind {
            Kind::Sandbox => {
                self.set_sandbox(request)?;
                Container {
                    body: Body::Sandbox { ended: watch::Sender::new(None) },
                    processes: Mutex::default(),
                }
            }
            Kind::Workload => self.create_workload(request, plan, keys).inspect_err(|_| {
                self.remove_files(&id);
                // What was opened among them must not be there for a next attempt, which could mount it elsewhere.
                self.take_copies(&id);
            })?,
        };
        self.containers().insert(id, Arc::new(container));
        Ok(())
    }

    /// The sandbox's kernel settings, if it has any.
    fn set_sandbox(&self, request: &CreateContainerRequest) -> Result<(), Failure> {
        let linux = request.OCI.as_ref().and_then(|spec| spec.Linux.as_ref());
        match linux.map(|linux| &linux.Sysctl).filter(|settings| !settings.is_empty()) {
            None => Ok(()),
            Some(settings) => self
                .runtime
                .settings(settings)
                .map_err(|e| Failure::effect("set the sandbox's kernel settings", &e)),
        }
    }

    fn create_workload(
        &self,
        request: &CreateContainerRequest,
        plan: Plan,
        keys: &Keys,
    ) -> Result<Container, Failure> {
        let sandbox = self.sandbox()?;
        let spec = request
            .OCI
            .as_ref()
            .ok_or_else(|| Failure::refused("OCI: found none, expected one"))?;
        let process = spec
            .Process
            .as_ref()
            .ok_or_else(|| Failure::refused("OCI.Process: found none, expected one"))?;
        let id = &plan.id;
        let cgroup = Cgroup::new(self.layout.cgroup(id));
        if cgroup.folder().exists() {
            return Err(Failure::Exists { what: format!("cgroup of container {id}") });
        }
        for volume in &plan.volumes {
            self.make_volume(volume)?;
        }
        let shared = self.layout.kata().join("shared/containers");
        let copied = copied_files(spec, &shared);
        let opened = sealed::open(sealed::find(spec, &shared)?, keys)?;
        let mut spec = self.hold_parts(id, spec, &plan.parts)?;
        if let Some(process) = spec.Process.as_mut() {
            opened.env.put_into(&mut process.Env)?;
        }
        let spec = &spec;
        self.check_bind_sources(spec)?;
        let mut steps = Steps::begin();
        let access = self.root_access(id, plan.root_bytes)?;
        steps.done("scratch");
        let root =
            VerifiedRoot::assemble(&self.layers, &plan.layers, &self.layout.root(id), access)
                .map_err(|e| Failure::effect("open the container's root", &e))?;
        steps.done("root");
        let context = SpecContext {
            root: root.path().to_owned(),
            cgroup: Path::new("/").join(id.as_str()),
            hostname: sandbox.hostname,
            home: home_directory(root.path(), user(process).0)
                .map_err(|e| Failure::effect("look up the user's home", &e))?,
            shared_pid: sandbox.shared_pid,
        };
        let value = container_spec(spec, &context)
            .map_err(|e| opened.env.hide(Failure::refused(format!("OCI.{e}"))))?;
        make_working_directory(root.path(), Path::new(&process.Cwd))
            .map_err(|e| Failure::effect("prepare the root", &e))?;
        write_private(&self.layout.spec_file(id), &value)?;
        steps.done("spec");
        // The last step before the container: what is opened is its own from here on.
        opened.write_files()?;
        let opened = opened.env;
        let first = self
            .make_process(process, |stdio| self.runtime.create(id, &self.layout.bundle(id), stdio));
        let first = first.map_err(|e| {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
            opened.hide(e)
        })?;
        steps.done("process");
        steps.tell(id);
        Ok(Container {
            body: Body::Workload { root: Mutex::new(Some(root)), cgroup, opened, copied },
            processes: Mutex::new(BTreeMap::from([(None, Arc::new(first))])),
        })
    }

    /// Keys for the sealed values of a container that is to be made. Blocks.
    pub(super) fn find_wanted_keys(
        &self,
        request: &CreateContainerRequest,
    ) -> Result<Vec<WantedKey>, Failure> {
        let shared = self.layout.kata().join("shared/containers");
        let Some(spec) = request.OCI.as_ref() else { return Ok(Vec::new()) };
        let wanted = sealed::find(spec, &shared).and_then(|found| sealed::wanted(&found));
        wanted.inspect_err(|_| self.forget_copies(&request.container_id))
    }

    /// Takes away what was copied in for a container that is not there.
    pub(super) fn forget_copies(&self, id: &str) {
        let Ok(id) = ContainerId::parse(id) else { return };
        if !self.containers().contains_key(&id) {
            self.take_copies(&id);
        }
    }

    /// The policy remembers what was copied, and a failed request tells it nothing: copied again in part, a volume would pass for whole.
    /// So there is no second attempt under this id.
    fn take_copies(&self, id: &ContainerId) {
        if remove_copies(&self.layout.kata().join("shared/containers"), id) {
            self.given_up().insert(id.clone());
        }
    }

    /// Carries out a permitted StartContainer. Blocks.
    pub(super) fn start(&self, id: &str) -> Result<(), Failure> {
        let (id, container) = self.container(id)?;
        match &container.body {
            Body::Sandbox { .. } => Ok(()),
            Body::Workload { cgroup, opened, .. } => {
                self.runtime
                    .start(&id)
                    .map_err(|e| opened.hide(Failure::effect("start the container", &e)))?;
                self.watch_memory(&id, cgroup);
                Ok(())
            }
        }
    }

    /// Carries out a permitted ExecProcess. Blocks.
    pub(super) fn exec(&self, request: &ExecProcessRequest) -> Result<(), Failure> {
        let (id, container) = self.container(&request.container_id)?;
        let exec = ExecId::parse(&request.exec_id, &id)
            .map_err(|e| Failure::refused(format!("exec_id: {e}")))?
            .ok_or_else(|| Failure::refused("exec_id: found none, expected one"))?;
        let Body::Workload { root, opened, .. } = &container.body else {
            return Err(Failure::refused("the sandbox has no process to be entered"));
        };
        let ports = (request.stdin_port, request.stdout_port, request.stderr_port);
        if request.string_user.is_some() || ports != (0, 0, 0) {
            return Err(Failure::refused("string_user, ports: found a value, expected none"));
        }
        let process = &mut request
            .process
            .as_ref()
            .cloned()
            .ok_or_else(|| Failure::refused("process: found none, expected one"))?;
        opened.put_into(&mut process.Env)?;
        let key = Some(exec.clone());
        {
            let mut known = container.processes();
            if known.contains_key(&key) {
                return Err(Failure::Exists { what: format!("process {exec} of container {id}") });
            }
            forget_ended(&mut known)?;
        }
        let home = {
            let root = root.lock().unwrap_or_else(PoisonError::into_inner);
            let path = root
                .as_ref()
                .map(|r| r.path().to_owned())
                .ok_or_else(|| Failure::NotFound { what: format!("root of container {id}") })?;
            home_directory(&path, user(process).0)
                .map_err(|e| Failure::effect("look up the user's home", &e))?
        };
        let value = exec_process(process, &ExecContext { home })
            .map_err(|e| opened.hide(Failure::refused(format!("process.{e}"))))?;
        let file = self.layout.exec_file(&id, &exec);
        write_private(&file, &value)?;
        let made =
            self.make_process(process, |stdio| self.runtime.exec(&id, &exec, &self.layout, stdio));
        let _ = fs::remove_file(&file);
        let made = made.map_err(|e| opened.hide(e))?;
        container.processes().insert(key, Arc::new(made));
        Ok(())
    }

    /// Streams, the process by `make`, and its entry in the table of children.
    fn make_process(
        &self,
        process: &oci::Process,
        make: impl FnOnce(
            Option<ah_container::ChildStdio>,
        )
            -> Result<(i32, Option<std::os::fd::OwnedFd>), ah_container::RuntimeError>,
    ) -> Result<Process, Failure> {
        let failed = |e: std::io::Error| Failure::effect("make the process's streams", &e);
        let (uid, gid) = user(process);
        let (theirs, ours) = if process.Terminal {
            (None, None)
        } else {
            let (theirs, ours) = stdio_pipes(uid, gid).map_err(|e| failed(e.into()))?;
            (Some(theirs), Some(ours))
        };
        let (pid, master) = make(theirs).map_err(|e| Failure::effect("make the process", &e))?;
        let ended = self.processes.claim(pid);
        let io = match (ours, master) {
            (Some(ours), _) => Io::pipes(ours).map_err(failed)?,
            (None, Some(master)) => Io::terminal(master).map_err(failed)?,
            (None, None) => return Err(failed(std::io::ErrorKind::NotFound.into())),
        };
        if let Some(size) = process.ConsoleSize.as_ref().filter(|b| b.Height != 0 && b.Width != 0) {
            io.resize(small(size.Height)?, small(size.Width)?)?;
        }
        Ok(Process { pid, io, ended })
    }

    /// Ends the container's processes and takes everything of it away. Blocks.
    pub(super) fn remove(&self, id: &str) -> Result<(), Failure> {
        let (id, container) = self.container(id)?;
        if let Body::Workload { root, cgroup, .. } = &container.body {
            cgroup.kill().map_err(|e| Failure::effect("end the container", &e))?;
            self.await_ends(&container)?;
            cgroup.remove().map_err(|e| Failure::effect("remove the cgroup", &e))?;
            root.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.remove_files(&id);
        remove_copies(&self.layout.kata().join("shared/containers"), &id);
        self.containers().remove(&id);
        Ok(())
    }

    /// A mount namespace goes with its last process; the root can be unmounted cleanly once all are reaped.
    fn await_ends(&self, container: &Container) -> Result<(), Failure> {
        let end = Instant::now() + END_TIMEOUT;
        let all: Vec<_> = container.processes().values().cloned().collect();
        for process in all {
            while process.ended.borrow().is_none() {
                self.processes.reap();
                if Instant::now() >= end {
                    return Err(Failure::NotNow {
                        text: format!("process {} has not ended within 10 s", process.pid),
                    });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn remove_files(&self, id: &ContainerId) {
        self.release_parts(id);
        self.remove_root_folder(id);
        let _ = fs::remove_dir_all(self.layout.bundle(id));
        let _ = fs::remove_dir_all(self.layout.runtime_state().join(id.as_str()));
        // Not recursively: what is still mounted there must not be emptied.
        let _ = fs::remove_dir(self.layout.container(id));
    }

    /// Every bind source exists and is reached without a symbolic link: a link could lead out of the agent's folders.
    fn check_bind_sources(&self, spec: &oci::Spec) -> Result<(), Failure> {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
        for mount in spec.Mounts.iter().filter(|m| m.type_ == "bind") {
            openat2(
                CWD,
                mount.source.as_str(),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            )
            .map_err(|e| {
                let e = std::io::Error::from(e);
                Failure::refused(format!("OCI.Mounts: source {:?}: {e}", mount.source))
            })?;
        }
        Ok(())
    }
}

/// How long the steps of a creation take, for the console at level debug.
struct Steps {
    since: Instant,
    text: String,
}

impl Steps {
    fn begin() -> Self {
        Self { since: Instant::now(), text: String::new() }
    }

    fn done(&mut self, step: &str) {
        self.text.push_str(&format!(" {step} {} ms", self.since.elapsed().as_millis()));
        self.since = Instant::now();
    }

    fn tell(&self, id: &ContainerId) {
        tell(Level::Debug, &format!("container {id}:{}", self.text));
    }
}

fn user(process: &oci::Process) -> (u32, u32) {
    process.User.as_ref().map_or((0, 0), |u| (u.UID, u.GID))
}

fn small(size: u32) -> Result<u16, Failure> {
    u16::try_from(size).map_err(|_| {
        Failure::refused(format!("terminal size: found {size}, expected at most 65535"))
    })
}

/// Writes a file that only the agent can read, in a folder that is made with it.
fn write_private(path: &PathBuf, value: &serde_json::Value) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::effect("write the bundle", &e);
    let bytes = serde_json::to_vec(value).map_err(|e| Failure::effect("write the bundle", &e))?;
    if bytes.len() > ah_container::MAX_SPEC_BYTES {
        return Err(Failure::refused(format!(
            "OCI: found {} bytes as JSON, expected at most 8 MiB",
            bytes.len()
        )));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}

/// Makes room in a full table by forgetting an ended process.
fn forget_ended(known: &mut BTreeMap<Option<ExecId>, Arc<Process>>) -> Result<(), Failure> {
    if known.len() < MAX_PROCESSES {
        return Ok(());
    }
    let ended = known
        .iter()
        .find(|(key, process)| key.is_some() && process.ended.borrow().is_some())
        .map(|(key, _)| key.clone());
    match ended {
        Some(key) => {
            known.remove(&key);
            Ok(())
        }
        None => Err(Failure::NotNow { text: "the container has 1024 processes running".into() }),
    }
}
