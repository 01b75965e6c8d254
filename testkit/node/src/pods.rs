use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ah_containerd_api::cri::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, DNSConfig, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatus,
    PodSandboxStatusRequest, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use ah_containerd_api::{Client, Status};
use anyhow::{Context, Result, bail};

use crate::node::Node;

/// What a pod is asked for with.
#[derive(Debug, Clone)]
pub struct PodConfig {
    /// Its name, which its log folder has, too.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// CRI's runtime handler; empty is runc.
    pub handler: String,
    /// Its annotations.
    pub annotations: HashMap<String, String>,
}

impl PodConfig {
    /// A pod of a runtime handler.
    pub fn new(name: &str, handler: &str) -> Self {
        Self {
            name: name.into(),
            namespace: "default".into(),
            uid: format!("00000000-0000-4000-8000-{:0>12}", name.len()),
            handler: handler.into(),
            annotations: HashMap::new(),
        }
    }
}

/// A running pod sandbox.
#[derive(Debug)]
pub struct Pod {
    client: Client,
    config: PodSandboxConfig,
    logs: PathBuf,
    /// Its id.
    pub id: String,
}

/// A container of a [`Pod`].
#[derive(Debug)]
pub struct Container {
    client: Client,
    log: PathBuf,
    /// Its id.
    pub id: String,
}

impl Node {
    /// `RunPodSandbox`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn run_pod(&self, pod: &PodConfig) -> Result<Pod, Status> {
        let logs = self.folder().join("pods").join(&pod.name);
        let metadata = PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            ..PodSandboxMetadata::default()
        };
        let labels = [
            ("io.kubernetes.pod.name", &pod.name),
            ("io.kubernetes.pod.namespace", &pod.namespace),
            ("io.kubernetes.pod.uid", &pod.uid),
        ];
        let dns = DNSConfig { servers: vec!["192.0.2.53".into()], ..DNSConfig::default() };
        let config = PodSandboxConfig {
            metadata: Some(metadata).into(),
            hostname: pod.name.clone(),
            log_directory: logs.display().to_string(),
            dns_config: Some(dns).into(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).clone())).collect(),
            annotations: pod.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig::default()).into(),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()).into(),
            runtime_handler: pod.handler.clone(),
            ..RunPodSandboxRequest::default()
        };
        let client = self.containerd();
        let id = client.call(request).await?.pod_sandbox_id;
        Ok(Pod { client, config, logs, id })
    }
}

impl Pod {
    /// The configuration of a container of this pod, as the kubelet makes it for one with default settings.
    pub fn container(&self, name: &str, image: &str, command: &[&str]) -> ContainerConfig {
        let metadata = ContainerMetadata { name: name.into(), ..ContainerMetadata::default() };
        let image = ImageSpec { image: image.into(), ..ImageSpec::default() };
        let namespaces =
            NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..NamespaceOption::default() };
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(namespaces).into(),
            ..LinuxContainerSecurityContext::default()
        };
        let linux = LinuxContainerConfig {
            security_context: Some(security).into(),
            ..LinuxContainerConfig::default()
        };
        ContainerConfig {
            metadata: Some(metadata).into(),
            image: Some(image).into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(linux).into(),
            ..ContainerConfig::default()
        }
    }

    /// `CreateContainer`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn create(&self, config: ContainerConfig) -> Result<Container, Status> {
        let log = self.logs.join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config).into(),
            sandbox_config: Some(self.config.clone()).into(),
            ..CreateContainerRequest::default()
        };
        let id = self.client.call(request).await?.container_id;
        Ok(Container { client: self.client.clone(), log, id })
    }

    /// `PodSandboxStatus`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn status(&self) -> Result<PodSandboxStatus> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            ..PodSandboxStatusRequest::default()
        };
        self.client.call(request).await?.status.into_option().context("sandbox without status")
    }

    /// `StopPodSandbox` and `RemovePodSandbox`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn remove(self) -> Result<(), Status> {
        let (stopped, removed) = (self.id.clone(), self.id);
        let stop =
            StopPodSandboxRequest { pod_sandbox_id: stopped, ..StopPodSandboxRequest::default() };
        self.client.call(stop).await?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: removed,
            ..RemovePodSandboxRequest::default()
        };
        self.client.call(remove).await.map(|_| ())
    }
}

impl Container {
    /// `StartContainer`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: self.id.clone(),
            ..StartContainerRequest::default()
        };
        self.client.call(request).await.map(|_| ())
    }

    /// `ContainerStatus`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn status(&self) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            ..ContainerStatusRequest::default()
        };
        self.client.call(request).await?.status.into_option().context("container without status")
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Errors
    /// When it does not end within the time.
    pub async fn wait(&self, limit: Duration) -> Result<i32> {
        let begun = Instant::now();
        loop {
            let status = self.status().await?;
            if status.state.enum_value() == Ok(ContainerState::CONTAINER_EXITED) {
                return Ok(status.exit_code);
            }
            if begun.elapsed() > limit {
                bail!("container {} runs after {} s: {status:?}", self.id, limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// CRI's log of it.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it printed: CRI's log without its prefix of time, stream and tag.
    ///
    /// # Errors
    /// When there is no log.
    pub fn output(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.log)
            .with_context(|| format!("log {}", self.log.display()))?;
        let line = |line: &str| line.splitn(4, ' ').nth(3).map(|text| format!("{text}\n"));
        Ok(text.lines().filter_map(line).collect())
    }

    /// `ExecSync`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn exec(&self, command: &[&str]) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
            ..ExecSyncRequest::default()
        };
        self.client.call(request).await
    }

    /// `StopContainer` and `RemoveContainer`.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn remove(self, grace_seconds: i64) -> Result<(), Status> {
        let stop = StopContainerRequest {
            container_id: self.id.clone(),
            timeout: grace_seconds,
            ..StopContainerRequest::default()
        };
        self.client.call(stop).await?;
        let remove =
            RemoveContainerRequest { container_id: self.id, ..RemoveContainerRequest::default() };
        self.client.call(remove).await.map(|_| ())
    }
}
