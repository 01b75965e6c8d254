//! The tasks of one pod, as containerd asks for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ah_agent_api::Empty;
use ah_agent_api::agent::{CreateContainerRequest, UpdateContainerRequest};
use tokio::sync::watch;

use crate::config::Config;
use crate::convert::{self, Kind, Spec};
use crate::events::{Publisher, timestamp};
use crate::pod::{Pod, lock};
use crate::process::{Exit, GONE, Process, State};
use crate::stdio::{Stdio, Streams, Whose};
use crate::termination::TerminationLog;
use crate::wire::{events, task};
use crate::{ShimError, stats, trace};

const SIGKILL: u32 = 9;

/// A container with its processes.
struct Task {
    bundle: String,
    kind: Kind,
    first: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    /// The request that made it.
    create: CreateContainerRequest,
    termination: Option<TerminationLog>,
}

/// The service.
pub(crate) struct Service {
    publisher: Publisher,
    tasks: Mutex<BTreeMap<String, Arc<Task>>>,
    pod: Mutex<Option<Arc<Pod>>>,
    done: watch::Sender<bool>,
}

impl Service {
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            tasks: Mutex::default(),
            pod: Mutex::default(),
            done: watch::Sender::new(false),
        }
    }

    /// Becomes true when containerd needs the shim no more.
    pub(crate) fn done(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }

    /// Ends the pod, if there is one.
    pub(crate) async fn end(&self) {
        let pod = lock(&self.pod).take();
        if let Some(pod) = pod {
            pod.end().await;
        }
    }

    pub(crate) async fn create(
        &self,
        request: task::CreateTaskRequest,
    ) -> Result<task::CreateTaskResponse, ShimError> {
        if lock(&self.tasks).contains_key(&request.id) {
            return Err(ShimError::Exists { what: format!("container {}", request.id) });
        }
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        stdio.check()?;
        let spec = read_spec(Path::new(&request.bundle))?;
        let kind = convert::kind(&spec);
        let create = match kind {
            Kind::Sandbox => self.create_sandbox(&request, &spec).await?,
            Kind::Container => self.pod()?.create(&request.id, &spec, &request.rootfs).await?,
            Kind::Alone => self.create_alone(&request, &spec).await?,
        };
        let task = Task {
            bundle: request.bundle.clone(),
            kind,
            first: Arc::new(Process::new(&request.id, "", stdio, None)),
            execs: Mutex::default(),
            create,
            termination: TerminationLog::of(&spec),
        };
        lock(&self.tasks).insert(request.id.clone(), Arc::new(task));
        self.publisher.send(&events::TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            io: Some(events::TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..Default::default()
            })
            .into(),
            pid: pid(),
            ..Default::default()
        });
        Ok(task::CreateTaskResponse { pid: pid(), ..Default::default() })
    }

    async fn create_sandbox(
        &self,
        request: &task::CreateTaskRequest,
        spec: &Spec,
    ) -> Result<CreateContainerRequest, ShimError> {
        self.check_no_pod()?;
        let config = Config::of(request.options.as_ref())?;
        let pod = self.keep(Pod::start(&request.id, spec, &config).await?);
        Ok(pod.sandbox.request.clone())
    }

    /// `ctr run`: the sandbox is nobody's task.
    async fn create_alone(
        &self,
        request: &task::CreateTaskRequest,
        spec: &Spec,
    ) -> Result<CreateContainerRequest, ShimError> {
        self.check_no_pod()?;
        let config = Config::of(request.options.as_ref())?;
        let pod = self.keep(Pod::alone(&request.id, spec, &config).await?);
        let created = pod.create(&request.id, spec, &request.rootfs).await;
        if created.is_err() {
            self.end().await;
        }
        created
    }

    fn check_no_pod(&self) -> Result<(), ShimError> {
        match lock(&self.pod).is_some() {
            true => Err(ShimError::Exists { what: "the pod's sandbox".into() }),
            false => Ok(()),
        }
    }

    fn keep(&self, pod: Pod) -> Arc<Pod> {
        let pod = Arc::new(pod);
        trace::spawn("out of memory", tell_out_of_memory(pod.clone(), self.publisher.clone()));
        trace::spawn("volumes", Pod::follow_volumes(Arc::downgrade(&pod)));
        *lock(&self.pod) = Some(pod.clone());
        pod
    }

    pub(crate) async fn start(
        &self,
        request: &task::StartRequest,
    ) -> Result<task::StartResponse, ShimError> {
        let (task, process) = self.process(&request.id, &request.exec_id)?;
        let pod = self.pod()?;
        process.step(State::Created, State::Running)?;
        let started = match &process.spec {
            None => pod.start_container(&request.id).await,
            Some(spec) => pod.exec(&convert::exec(&task.create, &request.exec_id, spec)).await,
        };
        let streams = started.and_then(|()| match task.kind {
            Kind::Sandbox => Ok(None),
            _ => streams(&pod, &process).map(Some),
        });
        let streams = match streams {
            Ok(streams) => streams,
            Err(error) => {
                self.ended(&process, GONE);
                return Err(error);
            }
        };
        self.tell_started(&process);
        trace::spawn("process", follow(pod, task, process, streams, self.publisher.clone()));
        Ok(task::StartResponse { pid: pid(), ..Default::default() })
    }

    fn tell_started(&self, process: &Process) {
        let container_id = process.container_id.clone();
        match process.exec_id.as_str() {
            "" => self.publisher.send(&events::TaskStart {
                container_id,
                pid: pid(),
                ..Default::default()
            }),
            exec_id => self.publisher.send(&events::TaskExecStarted {
                container_id,
                exec_id: exec_id.into(),
                pid: pid(),
                ..Default::default()
            }),
        }
    }

    fn ended(&self, process: &Process, status: u32) {
        ended(&self.publisher, process, status);
    }

    pub(crate) fn exec(&self, request: task::ExecProcessRequest) -> Result<(), ShimError> {
        let task = self.task(&request.id)?;
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        stdio.check()?;
        let spec = convert::parse_process(&request.spec.value)?;
        let process = Process::new(&request.id, &request.exec_id, stdio, Some(spec));
        let mut execs = lock(&task.execs);
        if request.exec_id.is_empty() || execs.contains_key(&request.exec_id) {
            return Err(ShimError::Exists { what: process.what() });
        }
        execs.insert(request.exec_id.clone(), Arc::new(process));
        self.publisher.send(&events::TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..Default::default()
        });
        Ok(())
    }

    pub(crate) async fn kill(&self, request: &task::KillRequest) -> Result<(), ShimError> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        match process.state() {
            State::Stopped(_) => Err(ShimError::NotFound { what: process.what() }),
            State::Created if !process.exec_id.is_empty() => {
                self.ended(&process, GONE);
                Ok(())
            }
            state => {
                self.pod()?.signal(&request.id, &request.exec_id, request.signal).await?;
                // nobody follows a process that was not started
                if state == State::Created && request.signal == SIGKILL {
                    self.ended(&process, GONE);
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn wait(
        &self,
        request: &task::WaitRequest,
    ) -> Result<task::WaitResponse, ShimError> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let exit = process.wait().await;
        Ok(task::WaitResponse {
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        })
    }

    pub(crate) async fn delete(
        &self,
        request: &task::DeleteRequest,
    ) -> Result<task::DeleteResponse, ShimError> {
        let (task, process) = self.process(&request.id, &request.exec_id)?;
        let exit = match process.state() {
            State::Stopped(exit) => exit,
            State::Created => Exit { status: GONE, at: std::time::SystemTime::now() },
            found => return Err(process.wrong(found, "stopped")),
        };
        match request.exec_id.as_str() {
            "" => self.delete_container(&request.id, &task, exit).await?,
            exec_id => drop(lock(&task.execs).remove(exec_id)),
        }
        Ok(task::DeleteResponse {
            pid: pid(),
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        })
    }

    async fn delete_container(&self, id: &str, task: &Task, exit: Exit) -> Result<(), ShimError> {
        match task.kind {
            Kind::Sandbox | Kind::Alone => self.end().await,
            Kind::Container => {
                let pod = lock(&self.pod).clone();
                if let Some(pod) = pod {
                    pod.remove(id).await?;
                }
            }
        }
        lock(&self.tasks).remove(id);
        self.publisher.send(&events::TaskDelete {
            container_id: id.into(),
            id: id.into(),
            pid: pid(),
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
        Ok(())
    }

    pub(crate) fn state(
        &self,
        request: &task::StateRequest,
    ) -> Result<task::StateResponse, ShimError> {
        let (task, process) = self.process(&request.id, &request.exec_id)?;
        let state = process.state();
        let mut response = task::StateResponse {
            id: request.id.clone(),
            bundle: task.bundle.clone(),
            pid: pid(),
            status: state.status().into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exec_id: request.exec_id.clone(),
            ..Default::default()
        };
        if let State::Stopped(exit) = state {
            response.exit_status = exit.status;
            response.exited_at = timestamp(exit.at);
        }
        Ok(response)
    }

    /// Processes of the guest have no numbers on the node: the shim's stands for all of them.
    pub(crate) fn pids(
        &self,
        request: &task::PidsRequest,
    ) -> Result<task::PidsResponse, ShimError> {
        self.task(&request.id)?;
        let process = task::ProcessInfo { pid: pid(), ..Default::default() };
        Ok(task::PidsResponse { processes: vec![process], ..Default::default() })
    }

    pub(crate) async fn pause(&self, request: &task::PauseRequest) -> Result<(), ShimError> {
        let (_, process) = self.process(&request.id, "")?;
        let pod = self.pod()?;
        pod.guest.call(None, pod.guest.agent().pause_container(&request.id)).await?;
        process.step(State::Running, State::Paused)?;
        let container_id = request.id.clone();
        self.publisher.send(&events::TaskPaused { container_id, ..Default::default() });
        Ok(())
    }

    pub(crate) async fn resume(&self, request: &task::ResumeRequest) -> Result<(), ShimError> {
        let (_, process) = self.process(&request.id, "")?;
        let pod = self.pod()?;
        pod.guest.call(None, pod.guest.agent().resume_container(&request.id)).await?;
        process.step(State::Paused, State::Running)?;
        let container_id = request.id.clone();
        self.publisher.send(&events::TaskResumed { container_id, ..Default::default() });
        Ok(())
    }

    pub(crate) async fn resize(&self, request: &task::ResizePtyRequest) -> Result<(), ShimError> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let pod = self.pod()?;
        let (rows, columns) = (request.height, request.width);
        let resized = pod.guest.agent().resize_tty(&request.id, &process.exec_id, rows, columns);
        Ok(pod.guest.call(None, resized).await?)
    }

    pub(crate) fn close_io(&self, request: &task::CloseIORequest) -> Result<(), ShimError> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_stdin.notify_one();
        }
        Ok(())
    }

    pub(crate) async fn update(&self, request: &task::UpdateTaskRequest) -> Result<(), ShimError> {
        self.task(&request.id)?;
        let update = UpdateContainerRequest {
            container_id: request.id.clone(),
            resources: Some(convert::resources(&request.resources.value)?).into(),
            ..Default::default()
        };
        let pod = self.pod()?;
        let limit = ah_agent_client::Limit::Within(std::time::Duration::from_secs(10));
        let updated = pod.guest.agent().call::<_, Empty>("UpdateContainer", &update, limit);
        pod.guest.call(None, updated).await?;
        Ok(())
    }

    pub(crate) async fn stats(
        &self,
        request: &task::StatsRequest,
    ) -> Result<task::StatsResponse, ShimError> {
        let task = self.task(&request.id)?;
        let found = match task.kind {
            // the guest runs nothing for it
            Kind::Sandbox => ah_agent_api::agent::StatsContainerResponse::default(),
            _ => {
                let pod = self.pod()?;
                pod.guest.call(None, pod.guest.agent().stats(&request.id)).await?
            }
        };
        let stats = stats::metrics(&found).map_err(|error| ShimError::Request {
            field: "stats",
            found: error.to_string(),
            expected: "figures that can be written",
        })?;
        Ok(task::StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    pub(crate) fn connect(&self, _: &task::ConnectRequest) -> task::ConnectResponse {
        task::ConnectResponse {
            shim_pid: pid(),
            task_pid: pid(),
            version: "v2".into(),
            ..Default::default()
        }
    }

    /// containerd asks after each container; the shim goes with the last one.
    pub(crate) fn shutdown(&self, request: &task::ShutdownRequest) -> Result<(), ShimError> {
        if request.now || lock(&self.tasks).is_empty() {
            self.done.send_replace(true);
        }
        Ok(())
    }

    fn pod(&self) -> Result<Arc<Pod>, ShimError> {
        let pod = lock(&self.pod).clone();
        pod.ok_or_else(|| ShimError::NotFound { what: "the pod's sandbox".into() })
    }

    fn task(&self, id: &str) -> Result<Arc<Task>, ShimError> {
        let task = lock(&self.tasks).get(id).cloned();
        task.ok_or_else(|| ShimError::NotFound { what: format!("container {id}") })
    }

    fn process(&self, id: &str, exec_id: &str) -> Result<(Arc<Task>, Arc<Process>), ShimError> {
        let task = self.task(id)?;
        let process = match exec_id {
            "" => Some(task.first.clone()),
            exec_id => lock(&task.execs).get(exec_id).cloned(),
        };
        let what = || format!("process {exec_id} of container {id}");
        Ok((task, process.ok_or_else(|| ShimError::NotFound { what: what() })?))
    }
}

fn pid() -> u32 {
    std::process::id()
}

pub(crate) fn read_spec(bundle: &Path) -> Result<Spec, ShimError> {
    let path = bundle.join("config.json");
    let bytes = std::fs::read(&path).map_err(ShimError::file("reading", &path))?;
    let (spec, ignored) = convert::parse(&bytes)?;
    tracing::debug!(?ignored, "fields of config.json that mean nothing to a guest");
    Ok(spec)
}

fn streams(pod: &Pod, process: &Process) -> Result<Streams, ShimError> {
    let whose = Whose {
        agent: pod.guest.agent().clone(),
        container_id: process.container_id.clone(),
        exec_id: process.exec_id.clone(),
    };
    Streams::start(&whose, &process.stdio, process.close_stdin.clone())
}

/// Waits for a process's end, and tells it when its output is with containerd.
async fn follow(
    pod: Arc<Pod>,
    task: Arc<Task>,
    process: Arc<Process>,
    streams: Option<Streams>,
    publisher: Publisher,
) {
    let waited = pod.guest.agent().wait_process(&process.container_id, &process.exec_id);
    let status = tokio::select! {
        status = waited => match status {
            Ok(status) => Some(u32::try_from(status).unwrap_or(GONE)),
            Err(error) => {
                tracing::error!(%error, "{}", process.what());
                None
            }
        },
        error = pod.guest.ended() => {
            tracing::error!(%error, "{}", process.what());
            None
        }
    };
    if let Some(streams) = streams {
        streams.finish().await;
    }
    let is_first = process.exec_id.is_empty();
    if let Some(log) = task.termination.as_ref().filter(|_| is_first && status.is_some()) {
        log.fetch(pod.guest.agent(), &process.container_id).await;
    }
    // with the VM everything is gone
    ended(&publisher, &process, status.unwrap_or(GONE));
}

fn ended(publisher: &Publisher, process: &Process, status: u32) {
    let Some(exit) = process.end(status) else { return };
    let id = match process.exec_id.as_str() {
        "" => process.container_id.clone(),
        exec_id => exec_id.to_owned(),
    };
    publisher.send(&events::TaskExit {
        container_id: process.container_id.clone(),
        id,
        pid: pid(),
        exit_status: exit.status,
        exited_at: timestamp(exit.at),
        ..Default::default()
    });
}

/// Passes on which containers run out of memory, until the connection ends.
async fn tell_out_of_memory(pod: Arc<Pod>, publisher: Publisher) {
    while let Ok(container_id) = pod.guest.agent().oom_event().await {
        publisher.send(&events::TaskOOM { container_id, ..Default::default() });
    }
}
