//! The guest's own effects: containers, files, network of this machine.

pub mod checks;
mod copy_file;
mod create;
mod effects;
mod io;
mod modules;
mod network;
mod oom;
mod parts;
mod processes;
mod sandbox;
mod sealed;
mod stats;
mod termination;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ah_container::{Cgroup, ContainerId, ExecId, Layout, Runtime};
use ah_release::ReleaseClient;
use ah_rootfs::{LayerStore, VerifiedRoot};
use ah_scratch::Scratch;
use tokio::sync::{mpsc, watch};

use crate::console::blocking_in_this_trace;
use crate::failure::Failure;

pub use io::{Io, MAX_READ_BYTES, Output};
pub use processes::{Process, Processes};

/// Most processes of one container that the agent remembers, running or ended.
const MAX_PROCESSES: usize = 1024;

/// A container that was created and not removed.
#[derive(Debug)]
struct Container {
    body: Body,
    processes: Mutex<Processes2>,
}

/// Processes by id; `None` is the container's first one.
type Processes2 = BTreeMap<Option<ExecId>, Arc<Process>>;

#[derive(Debug)]
enum Body {
    /// The sandbox: it has an end but no process.
    Sandbox { ended: watch::Sender<Option<i32>> },
    /// A container of an image.
    Workload {
        root: Mutex<Option<VerifiedRoot>>,
        cgroup: Cgroup,
        /// What its environment's sealed values were opened to.
        opened: sealed::OpenedEnv,
        /// Files copied in for it, by the path at which it sees each.
        copied: BTreeMap<String, PathBuf>,
    },
}

/// What CreateSandbox has made.
#[derive(Debug, Clone)]
struct Sandbox {
    hostname: String,
    shared_pid: Option<i32>,
}

/// The guest as the agent sees it.
pub struct Guest {
    started: Instant,
    layout: Layout,
    runtime: Runtime,
    layers: LayerStore,
    keys: Option<Arc<ReleaseClient>>,
    scratch: Scratch,
    processes: Processes,
    sandbox: Mutex<Option<Sandbox>>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    /// Containers that were not made and whose copied files were taken away: the policy still has those for copied.
    given_up: Mutex<BTreeSet<ContainerId>>,
    oom_sender: mpsc::Sender<ContainerId>,
    oom_events: tokio::sync::Mutex<mpsc::Receiver<ContainerId>>,
    destroyed: watch::Sender<bool>,
}

impl Guest {
    /// A guest without a sandbox. `runtime` is the runtime process, started before any thread; on `scratch` goes what containers write;
    /// `keys` opens sealed values.
    ///
    /// # Errors
    /// The signal handler for ended children cannot be installed.
    pub fn new(
        layout: Layout,
        runtime: Runtime,
        scratch: Scratch,
        keys: Option<Arc<ReleaseClient>>,
    ) -> std::io::Result<Self> {
        let processes = Processes::default();
        processes.reap_forever()?;
        let (oom_sender, oom_events) = mpsc::channel(oom::MAX_UNREAD);
        Ok(Self {
            started: Instant::now(),
            layout,
            runtime,
            layers: LayerStore::new(),
            keys,
            scratch,
            processes,
            sandbox: Mutex::default(),
            containers: Mutex::default(),
            given_up: Mutex::default(),
            oom_sender,
            oom_events: tokio::sync::Mutex::new(oom_events),
            destroyed: watch::Sender::new(false),
        })
    }

    /// Becomes true when DestroySandbox has done its work.
    pub fn destroyed(&self) -> watch::Receiver<bool> {
        self.destroyed.subscribe()
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox(&self) -> Result<Sandbox, Failure> {
        let sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        sandbox.clone().ok_or_else(|| Failure::NotNow { text: "there is no sandbox yet".into() })
    }

    fn container(&self, id: &str) -> Result<(ContainerId, Arc<Container>), Failure> {
        let missing = || Failure::NotFound { what: format!("container {id:?}") };
        let id = ContainerId::parse(id).map_err(|_| missing())?;
        let container = self.containers().get(&id).cloned().ok_or_else(missing)?;
        Ok((id, container))
    }

    fn process(&self, id: &str, exec: &str) -> Result<Arc<Process>, Failure> {
        let (id, container) = self.container(id)?;
        let missing = || Failure::NotFound { what: format!("process {exec:?} of container {id}") };
        let exec = ExecId::parse(exec, &id).map_err(|_| missing())?;
        container.processes().get(&exec).cloned().ok_or_else(missing)
    }
}

impl Container {
    fn processes(&self) -> MutexGuard<'_, Processes2> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs blocking work of the guest beside the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(blocking_in_this_trace(work)).await {
        Ok(result) => result,
        Err(e) => Err(Failure::effect("task", &e)),
    }
}
