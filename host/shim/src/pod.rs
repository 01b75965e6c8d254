//! One pod: its VM, and what containers ask of it.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ah_agent_api::agent::{CreateContainerRequest, ExecProcessRequest};
use ah_agent_client::CallError;
use ah_layers::SnapshotLayers;
use ah_metrics::{Event, Sender};
use ah_sandbox::{Guest, LayerImage, SandboxError};
use ah_verity::VerityInfo;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::convert::{self, Copied, CopyKind, Sandbox, Spec, Workload};
use crate::forward::{self, Forwarding};
use crate::network::{self, PodNetwork};
use crate::wire::task::Mount;
use crate::{ShimError, counting, host_files, machine, trace};

const SIGKILL: u32 = 9;
/// Time for the agent to take a signal; one that does not take SIGKILL loses its VM.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);
const DESTROY_LIMIT: Duration = Duration::from_secs(5);

/// How often volumes are looked at for another version; the kubelet makes one within a minute or two of a change.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// A pod that runs.
pub(crate) struct Pod {
    pub(crate) guest: Guest,
    pub(crate) sandbox: Sandbox,
    /// The containers' volumes that may get other files, by container.
    followed: Mutex<BTreeMap<String, Vec<Followed>>>,
    /// `kubectl port-forward`, until the pod ends.
    forwarding: Mutex<Option<Forwarding>>,
}

/// A volume in the guest, and its version there.
#[derive(Clone)]
struct Followed {
    container: String,
    copied: Copied,
    version: PathBuf,
    /// The version that could not be copied, and is tried again.
    failed: Option<PathBuf>,
}

impl Followed {
    fn tell(&self, done: &Result<(), ShimError>) {
        let (container, source) = (&self.container, self.copied.source.display());
        match done {
            Ok(()) => tracing::info!(container, %source, "volume renewed"),
            Err(error) => {
                counting::failed(error);
                tracing::warn!(container, %source, error = error.told(), "volume not renewed");
            }
        }
    }

    /// A version is done with when the guest has it, or when its policy does not let it in: then the container keeps what it has. What fails
    /// otherwise, as for files that the kubelet takes away meanwhile, is tried again. Said and counted are a version's first failure, and
    /// what became of it.
    fn note(&mut self, version: PathBuf, done: &Result<(), ShimError>) {
        let told = self.failed.as_ref() == Some(&version);
        let denied = matches!(done, Err(ShimError::Sandbox(SandboxError::DeniedByPolicy { .. })));
        let over = done.is_ok() || denied;
        if over || !told {
            self.tell(done);
        }
        if over {
            self.version = version;
            self.failed = None;
        } else {
            self.failed = Some(version);
        }
    }

    /// The version that the node has; `None` for what has no versions.
    fn version_of(copied: &Copied) -> Option<PathBuf> {
        let versions = copied.kind == CopyKind::Volume;
        versions.then(|| std::fs::read_link(copied.source.join("..data")).ok()).flatten()
    }
}

impl Pod {
    /// Starts the VM, gives it its network, makes the sandbox and its container.
    pub(crate) async fn start(id: &str, spec: &Spec, config: &Config) -> Result<Self, ShimError> {
        Self::of(convert::sandbox(id, spec)?, spec, config).await
    }

    /// A VM for a container without a pod.
    pub(crate) async fn alone(id: &str, spec: &Spec, config: &Config) -> Result<Self, ShimError> {
        let pod = Self::of(convert::alone(id, spec)?, spec, config).await?;
        pod.start_container(&pod.sandbox.id).await?;
        Ok(pod)
    }

    async fn of(sandbox: Sandbox, spec: &Spec, config: &Config) -> Result<Self, ShimError> {
        let counting = counting::to(&config.metrics_events);
        let network = read_network(&sandbox).await?;
        let guest = machine::guest(config, spec, &sandbox, network.as_ref()).await?;
        let stages = Stages { counts: counting.clone(), place: ah_agent_client::place() };
        let guest = Guest::boot(guest, Arc::new(stages)).await?;
        let pod = Self { guest, sandbox, followed: Mutex::default(), forwarding: Mutex::default() };
        match pod.prepare(network).await {
            Ok(()) => Ok(pod),
            Err(error) => {
                pod.end().await;
                Err(error)
            }
        }
    }

    async fn prepare(&self, network: Option<PodNetwork>) -> Result<(), ShimError> {
        if let Some(network) = network {
            self.join(network).await?;
        }
        self.create_sandbox().await
    }

    async fn join(&self, network: PodNetwork) -> Result<(), ShimError> {
        let joined = network.clone();
        blocking(move || joined.join()).await?;
        let agent = self.guest.agent();
        self.guest.call(None, agent.update_interface(&network.interface)).await?;
        self.guest.call(None, agent.update_routes(&network.routes)).await?;
        if let Some(neighbours) = &network.neighbours {
            self.guest.call(None, agent.add_neighbours(neighbours)).await?;
        }
        *lock(&self.forwarding) = forward::begin(&network);
        Ok(())
    }

    async fn create_sandbox(&self) -> Result<(), ShimError> {
        let resolv_conf = match &self.sandbox.resolv_conf {
            Some(copied) => std::fs::read_to_string(&copied.source)
                .map_err(ShimError::file("reading", &copied.source))?,
            None => String::new(),
        };
        let agent = self.guest.agent();
        let request = self.sandbox.create_request(&resolv_conf);
        self.guest.call(None, agent.create_sandbox(&request)).await?;
        self.copy(None, self.sandbox.resolv_conf.as_slice()).await?;
        self.guest.call(None, agent.create_container(&self.sandbox.request)).await?;
        Ok(())
    }

    /// Makes a container; gives the request that made it.
    pub(crate) async fn create(
        &self,
        id: &str,
        spec: &Spec,
        rootfs: &[Mount],
    ) -> Result<CreateContainerRequest, ShimError> {
        let mut layers = Vec::new();
        let mut paths = BTreeMap::new();
        for image in images(rootfs)? {
            let path = self.guest.plug(&image).await?;
            paths.insert(image.verity.root_hash, path);
            layers.push(image.verity);
        }
        let workload = self.convert(id, spec, &layers, &paths)?;
        let followed = workload.copies.iter().filter_map(|copied| {
            let version = Followed::version_of(copied)?;
            Some(Followed {
                container: workload.name.clone(),
                copied: copied.clone(),
                version,
                failed: None,
            })
        });
        let followed: Vec<Followed> = followed.collect();
        self.copy(Some(&workload.name), &workload.copies).await?;
        let create = self.guest.agent().create_container(&workload.request);
        self.guest.call(Some(&workload.name), create).await?;
        lock(&self.followed).insert(id.to_owned(), followed);
        Ok(workload.request)
    }

    /// Copies volumes again when the kubelet has put other files in them: renewed tokens, changed ConfigMaps. Which of them the
    /// containers get is the policy's to say. Ends with the pod.
    pub(crate) async fn follow_volumes(pod: Weak<Self>) {
        loop {
            sleep(FOLLOW_INTERVAL).await;
            let Some(pod) = pod.upgrade() else { return };
            let all: Vec<(String, Vec<Followed>)> =
                lock(&pod.followed).iter().map(|(id, all)| (id.clone(), all.clone())).collect();
            for (id, all) in all {
                for (index, mut followed) in all.into_iter().enumerate() {
                    let found = Followed::version_of(&followed.copied);
                    let Some(version) = found.filter(|found| *found != followed.version) else {
                        continue;
                    };
                    let copied = std::slice::from_ref(&followed.copied);
                    let done = pod.copy(Some(&followed.container), copied).await;
                    followed.note(version, &done);
                    if let Some(known) =
                        lock(&pod.followed).get_mut(&id).and_then(|all| all.get_mut(index))
                    {
                        *known = followed;
                    }
                }
            }
        }
    }

    fn convert(
        &self,
        id: &str,
        spec: &Spec,
        layers: &[VerityInfo],
        paths: &BTreeMap<ah_digest::Sha256, String>,
    ) -> Result<Workload, ShimError> {
        let mounted = host_files::mount_info(spec)?;
        Ok(convert::workload(id, spec, &self.sandbox, layers, paths, &mounted)?)
    }

    /// One by one: a folder comes before what is in it.
    async fn copy(&self, container: Option<&str>, all: &[Copied]) -> Result<(), ShimError> {
        for copied in all {
            let source = copied.source.clone();
            let tree = blocking(move || host_files::tree(&source)).await?;
            for request in convert::copy_requests(copied, &tree) {
                self.guest.call(container, self.guest.agent().copy_file(&request)).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), ShimError> {
        Ok(self.guest.call(None, self.guest.agent().start_container(id)).await?)
    }

    pub(crate) async fn exec(&self, request: &ExecProcessRequest) -> Result<(), ShimError> {
        Ok(self.guest.call(None, self.guest.agent().exec_process(request)).await?)
    }

    /// Sends a signal. An agent that does not take SIGKILL in time is taken for dead, and the VM with it.
    pub(crate) async fn signal(
        &self,
        id: &str,
        exec_id: &str,
        signal: u32,
    ) -> Result<(), ShimError> {
        let sent = self.guest.agent().signal_process(id, exec_id, signal);
        match timeout(SIGNAL_LIMIT, sent).await {
            // its process has ended meanwhile
            Ok(Err(CallError::Refused { message, .. })) => {
                tracing::debug!(message, signal, id, "signal");
                Ok(())
            }
            Err(_) if signal == SIGKILL => {
                tracing::error!(
                    "the agent did not take SIGKILL in {SIGNAL_LIMIT:?}: ending the vm"
                );
                self.guest.stop().await;
                Ok(())
            }
            Ok(done) => Ok(self.guest.call(None, ready(done)).await?),
            Err(_) => {
                let late = Err(CallError::Timeout { method: "SignalProcess" });
                Ok(self.guest.call(None, ready(late)).await?)
            }
        }
    }

    /// Takes a container that has ended away.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), ShimError> {
        lock(&self.followed).remove(id);
        let removed = self.guest.agent().remove_container(id);
        match self.guest.call(None, removed).await {
            // with the VM everything is gone
            Err(SandboxError::GuestEnded { .. } | SandboxError::NoAnswer { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the VM and everything in it.
    pub(crate) async fn end(&self) {
        drop(lock(&self.forwarding).take());
        if let Ok(Err(error)) = timeout(DESTROY_LIMIT, self.guest.agent().destroy_sandbox()).await {
            tracing::debug!(%error, "destroying the sandbox");
        }
        self.guest.stop().await;
        if let Some(namespace) = self.sandbox.network_namespace.clone()
            && let Err(error) = blocking(move || network::leave(&namespace)).await
        {
            tracing::debug!(error = error.told(), "leaving the network namespace");
        }
    }
}

/// What a mutex holds; a thread that panicked with it left it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stages into the log and to who counts, with the time since the VM's start.
struct Stages {
    counts: Sender,
    /// Of the call that starts the VM: stages come from other tasks, too.
    place: Option<ah_agent_client::Place>,
}

impl ah_sandbox::Events for Stages {
    fn stage(&self, stage: &ah_sandbox::Stage) {
        let (name, ms) = (stage.name, stage.at.as_millis());
        tracing::info!(?name, ms, subject = stage.subject, "stage");
        if counting::is_of_a_start(stage.name) {
            let name = name.to_string();
            trace::stage(self.place, &name, stage.at);
            self.counts.send(&Event::Stage { name, seconds: stage.at.as_secs_f64() });
        }
    }
}

async fn read_network(sandbox: &Sandbox) -> Result<Option<PodNetwork>, ShimError> {
    match sandbox.network_namespace.clone().filter(|path| path != Path::new("")) {
        None => Ok(None),
        Some(namespace) => blocking(move || network::read(&namespace)).await,
    }
}

/// The block images of a container's rootfs, top first.
fn images(rootfs: &[Mount]) -> Result<Vec<LayerImage>, ShimError> {
    let [mount] = rootfs else {
        let found = format!("{} mounts", rootfs.len());
        let expected = "one overlay of anchorhold-snapshotter";
        return Err(ShimError::Request { field: "rootfs", found, expected });
    };
    let images = SnapshotLayers::of_mount(&mount.options)?.images()?;
    Ok(images
        .into_iter()
        .map(|image| LayerImage { path: image.path, verity: image.info })
        .collect())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShimError> + Send + 'static,
) -> Result<T, ShimError> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        Err(error) => Err(ShimError::network("working on a thread")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Captured;

    fn denied() -> Result<(), ShimError> {
        let (method, reason) = ("CopyFile", "pinned".into());
        Err(SandboxError::DeniedByPolicy { method, container: None, reason }.into())
    }

    fn failed() -> Result<(), ShimError> {
        let (method, reason) = ("CopyFile", "no space".into());
        Err(SandboxError::AgentFailed { method, container: None, reason }.into())
    }

    fn gone() -> Result<(), ShimError> {
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        Err(ShimError::file("reading", "/v/..data/token")(gone))
    }

    /// A volume with version 1 in the guest, after attempts to copy version 2.
    fn after(attempts: Vec<Result<(), ShimError>>) -> Followed {
        let copied = Copied { source: "/v".into(), path: "/g".into(), kind: CopyKind::Volume };
        let (container, version) = ("c".into(), "1".into());
        let mut followed = Followed { container, copied, version, failed: None };
        for done in attempts {
            followed.note("2".into(), &done);
        }
        followed
    }

    /// Taken for done, a token that was not copied for want of its files would stay the old one until it has expired.
    #[test]
    fn a_version_that_was_not_copied_is_tried_again_unless_the_policy_denied_it() {
        let check = |done: Result<(), ShimError>, version: &str, failed: Option<&str>| {
            let what = format!("{done:?}");
            let followed = after(vec![done]);
            assert_eq!(followed.version, Path::new(version), "{what}");
            assert_eq!(followed.failed.as_deref(), failed.map(Path::new), "{what}");
        };
        check(Ok(()), "2", None);
        check(denied(), "2", None);
        check(failed(), "1", Some("2"));
        check(gone(), "1", Some("2"));
    }

    /// Otherwise the log says "not renewed" of a volume that was, and nobody hears of a denial.
    #[test]
    fn a_version_is_told_when_it_first_fails_and_when_it_is_done_with() {
        let (lines, _guard) = Captured::start();
        let check = |attempts: Vec<Result<(), ShimError>>, expect: &[&str]| {
            after(attempts);
            let found = lines.take();
            assert_eq!(found.len(), expect.len(), "{found:?}");
            for (line, word) in found.iter().zip(expect) {
                assert!(line.contains(word), "{line}");
            }
        };
        check(vec![Ok(())], &["volume renewed"]);
        check(vec![gone(), failed(), failed()], &["volume not renewed"]);
        check(vec![gone(), failed(), Ok(())], &["volume not renewed", "volume renewed"]);
        check(vec![failed(), denied()], &["no space", "pinned"]);
    }
}
