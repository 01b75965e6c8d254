//! The pod's containers: created and started in order, followed to their ends, stopped when asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ah_agent_client::{AgentClient, CallError, Stream, WaitStatus};
use ah_pod::signals::signal_number;
use ah_pod::{Container, Logs, Role, Step, requests, steps};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Created, SandboxError, Stage, Stop,
    events::{StageName, Timeline},
    link,
};

/// Bytes asked for at once.
const READ_BYTES: u32 = 64 * 1024;
/// A longer line is passed on in parts.
const LINE_MAX_BYTES: usize = 16 * 1024;
/// Output that is still on its way when a process has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
const DESTROY_LIMIT: Duration = Duration::from_secs(5);
/// Time between SIGKILL and giving up on a container.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Time for the agent to take a signal: one that does not answer must not hold the pod's end.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// How a pod ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code of the first container that failed, else 0.
    pub exit_code: i32,
    /// Whether a person stopped it.
    pub stopped: bool,
    /// Containers in the order of their ends.
    pub containers: Vec<ContainerEnd>,
    /// Stages in the order of their times.
    pub stages: Vec<Stage>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Its name.
    pub name: String,
    /// Exit code: 128 and the signal's number when a signal ended it.
    pub exit_code: i32,
}

impl Created {
    /// Runs the pod's containers to their ends, then ends the VM.
    ///
    /// # Errors
    /// [`SandboxError`] by blame; the VM is gone then, too.
    pub async fn run_to_end(self, stop: Stop) -> Result<Outcome, SandboxError> {
        let timeline = self.link.timeline.clone();
        let mut hurry = stop.clone();
        let _out_of_memory = AbortOnDrop(tokio::spawn(tell_out_of_memory(
            self.link.agent.clone(),
            timeline.clone(),
            self.host.container_ids.clone(),
        )));
        let mut run = Run::new(self, stop);
        // Whatever the guest is busy with, a second wish to stop ends the VM.
        let hurried = tokio::select! {
            done = run.containers() => done.map(|()| false)?,
            () = hurry.requested_now() => true,
        };
        run.stopped |= hurried;
        let outcome = run.finish().await?;
        Ok(Outcome { stages: timeline.stages(), ..outcome })
    }
}

/// Passes on which containers run out of memory, until the connection ends.
async fn tell_out_of_memory(
    agent: AgentClient,
    timeline: Timeline,
    container_ids: BTreeMap<String, String>,
) {
    while let Ok(id) = agent.oom_event().await {
        let named = container_ids.iter().find(|(_, known)| **known == id);
        if let Some((name, _)) = named {
            timeline.events.out_of_memory(name);
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Ended = (usize, Result<WaitStatus, CallError>);

struct Run {
    created: Created,
    stop: Stop,
    stopped: bool,
    following: JoinSet<Ended>,
    running: BTreeMap<usize, String>,
    ends: Vec<(usize, ContainerEnd)>,
}

impl Run {
    fn new(created: Created, stop: Stop) -> Self {
        Self {
            created,
            stop,
            stopped: false,
            following: JoinSet::new(),
            running: BTreeMap::new(),
            ends: Vec::new(),
        }
    }

    async fn containers(&mut self) -> Result<(), SandboxError> {
        for step in steps(&self.created.pod) {
            match step {
                Step::Create(index) => self.create(index).await?,
                Step::Start(index) => self.start(index).await?,
                Step::WaitForSuccess(index) => {
                    self.until(|run| !run.running.contains_key(&index)).await?;
                    if self.failure(|end| *end == index).is_some() {
                        break;
                    }
                }
            }
            if self.stopped {
                break;
            }
        }
        let main = |run: &Self| run.running.keys().all(|index| run.role(*index) != Role::Main);
        self.until(main).await?;
        // Sidecars end when the others have.
        self.signal_all(None).await;
        let deadline = Instant::now() + self.grace();
        self.until_or_killed(deadline).await
    }

    async fn create(&mut self, index: usize) -> Result<(), SandboxError> {
        let Created { link, pod, host } = &self.created;
        let request = requests::create_container(pod, index, host)?;
        let name = self.name(index);
        link.call(Some(&name), link.agent.create_container(&request)).await?;
        link.timeline.reached(StageName::ContainerCreated, Some(&name));
        Ok(())
    }

    async fn start(&mut self, index: usize) -> Result<(), SandboxError> {
        let name = self.name(index);
        let Created { link, pod, host } = &self.created;
        let Some(id) = host.container_ids.get(&name).cloned() else { return Ok(()) };
        link.call(Some(&name), link.agent.start_container(&id)).await?;
        link.timeline.reached(StageName::ContainerStarted, Some(&name));
        let follower = Follower {
            agent: link.agent.clone(),
            timeline: link.timeline.clone(),
            name: name.clone(),
            id: id.clone(),
        };
        let logs = pod.logs;
        self.following.spawn(async move { (index, follower.follow(logs).await) });
        self.running.insert(index, id);
        Ok(())
    }

    /// Follows the containers until `done`; a wish to stop becomes signals here.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), SandboxError> {
        while !done(self) {
            let mut stop = self.stop.clone();
            tokio::select! {
                ended = self.following.join_next() => match ended {
                    Some(ended) => self.ended(ended).await?,
                    None => return Ok(()),
                },
                exit = self.created.link.vm.wait() => {
                    return Err(link::ended(&self.created.link.vm, &exit));
                }
                () = stop.requested(), if !self.stopped => {
                    self.stopped = true;
                    self.signal_all(None).await;
                    let deadline = Instant::now() + self.grace();
                    return self.until_or_killed(deadline).await;
                }
            }
        }
        Ok(())
    }

    /// Follows the containers to their ends: killed at the deadline, left to the VM's end after that.
    async fn until_or_killed(&mut self, deadline: Instant) -> Result<(), SandboxError> {
        let mut deadline = deadline;
        let mut killed = false;
        while !self.running.is_empty() {
            let mut stop = self.stop.clone();
            tokio::select! {
                ended = self.following.join_next() => match ended {
                    Some(ended) => self.ended(ended).await?,
                    None => return Ok(()),
                },
                () = stop.requested_now() => return Ok(()),
                () = sleep_until(deadline) => {
                    if killed {
                        return Ok(());
                    }
                    killed = true;
                    self.signal_all(Some(SIGKILL)).await;
                    deadline = Instant::now() + KILL_LIMIT;
                }
            }
        }
        Ok(())
    }

    async fn ended(
        &mut self,
        ended: Result<Ended, tokio::task::JoinError>,
    ) -> Result<(), SandboxError> {
        let (index, status) = ended.map_err(|error| SandboxError::Config {
            detail: format!("the task that follows a container ended: {error}"),
        })?;
        self.running.remove(&index);
        let name = self.name(index);
        let exit_code = match status {
            Ok(exit_code) => exit_code,
            Err(error) => return Err(self.created.link.explain(Some(&name), error).await),
        };
        let timeline = &self.created.link.timeline;
        timeline.reached(StageName::ContainerEnded, Some(&name));
        timeline.events.ended(&name, exit_code);
        self.ends.push((index, ContainerEnd { name, exit_code }));
        Ok(())
    }

    /// The container's own stop signal unless another is given.
    async fn signal_all(&self, signal: Option<u32>) {
        for (index, id) in &self.running {
            let own = self.container(*index).and_then(|c| c.image.stop_signal.as_deref());
            let signal = signal.unwrap_or_else(|| own.and_then(signal_number).unwrap_or(SIGTERM));
            let sent = self.created.link.agent.signal_process(id, "", signal);
            match timeout(SIGNAL_LIMIT, sent).await {
                Ok(Ok(())) => {}
                // One that ended meanwhile is as good as signalled.
                Ok(Err(error)) => tracing::debug!(%error, "signal"),
                Err(_) => tracing::warn!("the agent did not take signal {signal} in time"),
            }
        }
    }

    async fn finish(self) -> Result<Outcome, SandboxError> {
        let exit_code = self.failure(|index| self.role(*index) != Role::Sidecar).unwrap_or(0);
        let Self { created, stopped, mut following, ends, .. } = self;
        following.abort_all();
        let Created { link, host, .. } = created;
        let corrupt = link.corruptions();
        // The VM is about to end anyway.
        if let Ok(Err(error)) = timeout(DESTROY_LIMIT, link.agent.destroy_sandbox()).await {
            tracing::debug!(%error, "destroying the sandbox");
        }
        link.timeline.reached(StageName::SandboxDestroyed, None);
        drop(link.services);
        link.vm.end().await;
        link.timeline.reached(StageName::VmEnded, None);
        if let Some((id, reason)) = corrupt.into_iter().next() {
            let named = host.container_ids.into_iter().find(|(_, known)| *known == id);
            return Err(SandboxError::LayerRefused {
                container: named.map(|(name, _)| name),
                reason,
            });
        }
        let containers = ends.into_iter().map(|(_, end)| end).collect();
        Ok(Outcome { exit_code, stopped, containers, stages: Vec::new() })
    }

    fn failure(&self, counts: impl Fn(&usize) -> bool) -> Option<i32> {
        let failed = |(index, end): &&(usize, ContainerEnd)| counts(index) && end.exit_code != 0;
        self.ends.iter().find(failed).map(|(_, end)| end.exit_code)
    }

    fn container(&self, index: usize) -> Option<&Container> {
        self.created.pod.containers.get(index)
    }

    fn name(&self, index: usize) -> String {
        self.container(index).map(|container| container.name.clone()).unwrap_or_default()
    }

    fn role(&self, index: usize) -> Role {
        self.container(index).map_or(Role::Main, |container| container.role)
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.created.pod.termination_grace_seconds)
    }
}

/// Follows one container: its output, then its end.
struct Follower {
    agent: AgentClient,
    timeline: Timeline,
    name: String,
    id: String,
}

impl Follower {
    async fn follow(self, logs: Logs) -> Result<WaitStatus, CallError> {
        let this = Arc::new(self);
        let readers: Vec<JoinHandle<()>> = match logs {
            Logs::Closed => Vec::new(),
            Logs::Readable => [Stream::Stdout, Stream::Stderr]
                .map(|stream| tokio::spawn(this.clone().read(stream)))
                .into(),
        };
        let status = this.agent.wait_process(&this.id, "").await;
        for mut reader in readers {
            // A process that the container left behind may hold the stream open.
            if timeout(DRAIN_LIMIT, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        status
    }

    async fn read(self: Arc<Self>, stream: Stream) {
        let mut lines = Lines::default();
        loop {
            match self.agent.read_stream(stream, &self.id, "", READ_BYTES).await {
                Ok(data) if data.is_empty() => break,
                Ok(data) => lines.push(&data, |line| self.line(stream, line)),
                Err(error) => {
                    // The end of the stream is an error in this protocol; a denial is the owner's choice.
                    tracing::debug!(%error, "output of {}", self.name);
                    break;
                }
            }
        }
        lines.finish(|line| self.line(stream, line));
    }

    fn line(&self, stream: Stream, line: &[u8]) {
        self.timeline.reached_first(StageName::FirstOutput, Some(&self.name));
        self.timeline.events.output(&self.name, stream, line);
    }
}

#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, data: &[u8], mut line: impl FnMut(&[u8])) {
        for byte in data {
            if *byte == b'\n' {
                line(&self.0);
                self.0.clear();
                continue;
            }
            if self.0.len() == LINE_MAX_BYTES {
                line(&self.0);
                self.0.clear();
            }
            self.0.push(*byte);
        }
    }

    fn finish(self, mut line: impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            line(&self.0);
        }
    }
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod run_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines() {
        let check = |parts: &[&[u8]], expect: &[&[u8]]| {
            let mut found = Vec::new();
            let mut lines = Lines::default();
            for part in parts {
                lines.push(part, |line| found.push(line.to_vec()));
            }
            lines.finish(|line| found.push(line.to_vec()));
            assert_eq!(found, expect);
        };
        check(&[b"a\nb", b"c\n"], &[b"a", b"bc"]);
        check(&[b"a\n\nb"], &[b"a", b"", b"b"]);
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        check(&[&long], &[&long[..LINE_MAX_BYTES], b"x"]);
        let full = [&long[..LINE_MAX_BYTES], b"\n"].concat();
        check(&[&full], &[&long[..LINE_MAX_BYTES]]);
    }
}
