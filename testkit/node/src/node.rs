use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ah_containerd_api::Client;
use ah_containerd_api::cri::{ImageSpec, ImageStatusRequest, RemoveImageRequest, StatusRequest};
use ah_containerd_api::snapshots::{ListSnapshotsRequest, StatSnapshotRequest};
use ah_containerd_api::{Code, Status};
use ah_testkit_images::{ImageSpec as NewImage, LayoutBuilder, write_archive};
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::config::{CNI, NodeConfig};
use crate::namespaces::{Daemon, Namespaces};

/// The snapshotter's name in containerd.
pub const SNAPSHOTTER: &str = "anchorhold";
/// The sandbox's image.
pub(crate) const PAUSE: &str = "localhost/pause:1";
/// How long a daemon may take until it answers, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running containerd with our snapshotter.
pub struct Node {
    config: NodeConfig,
    containerd: Option<Daemon>,
    snapshotter: Option<Daemon>,
    /// Dropped before the folder: it ends what writes there.
    namespaces: Namespaces,
    folder: TempDir,
}

impl Node {
    /// Starts it, with the pause image imported.
    ///
    /// # Errors
    /// When a program does not start, with its log.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ah-node-").tempdir()?;
        std::fs::create_dir(folder.path().join("cni"))?;
        std::fs::write(folder.path().join("cni/10-node.conflist"), CNI)?;
        let toml = config.containerd_toml(folder.path());
        std::fs::write(folder.path().join("containerd.toml"), toml)?;
        let namespaces = Namespaces::new()?;
        let mut node = Self { config, containerd: None, snapshotter: None, namespaces, folder };
        node.start_snapshotter().await?;
        node.start_containerd().await?;
        let pause = NewImage {
            entrypoint: vec!["/bin/sleep".into()],
            cmd: vec!["1000000".into()],
            // Whom Kubernetes' own pause image is run by, and policies expect.
            user: Some("65535:65535".into()),
            ..ah_testkit_images::busybox()?
        };
        node.import(&[(PAUSE, &pause)]).await?;
        Ok(node)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The snapshotter's folder.
    pub fn snapshotter_root(&self) -> PathBuf {
        self.folder().join("snapshotter")
    }

    /// A client of containerd, CRI included.
    pub fn containerd(&self) -> Client {
        Client::new(&self.folder().join("containerd.sock"))
    }

    /// A client of the snapshotter itself.
    pub fn snapshotter(&self) -> Client {
        Client::new(&self.folder().join("snapshotter.sock"))
    }

    /// The socket where the node's metrics are asked for.
    pub fn metrics(&self) -> PathBuf {
        self.folder().join("metrics.sock")
    }

    /// What the daemons have logged.
    pub fn logs(&self) -> String {
        let read = |name: &str| {
            let text = std::fs::read_to_string(self.folder().join(name)).unwrap_or_default();
            format!("== {name}\n{text}")
        };
        format!("{}\n{}", read("snapshotter.log"), read("containerd.log"))
    }

    /// The namespaces that it runs in.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Starts the snapshotter, unless it runs.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_snapshotter(&mut self) -> Result<()> {
        let mut command = self.namespaces.command(&self.config.snapshotter);
        command.arg("--root").arg(self.snapshotter_root());
        command.arg("--socket").arg(self.folder().join("snapshotter.sock"));
        command.arg("--containerd").arg(self.folder().join("containerd.sock"));
        if let Some(events) = &self.config.metrics_events {
            command.arg("--metrics").arg(format!("unix:{}", self.metrics().display()));
            command.arg("--events").arg(events);
        }
        if let Some(collector) = &self.config.collector {
            command.arg("--otlp").arg(collector);
        }
        let log = self.folder().join("snapshotter.log");
        let daemon = self.namespaces.start("anchorhold-snapshotter", command, &log)?;
        let daemon = self.snapshotter.insert(daemon);
        let client = Client::new(&self.folder.path().join("snapshotter.sock"));
        until_ready(daemon, || async {
            client.stream(ListSnapshotsRequest::default()).await.map(|_| true)
        })
        .await
    }

    /// Starts containerd.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_containerd(&mut self) -> Result<()> {
        let mut command = self.namespaces.command(self.config.containerd.join("containerd"));
        command.arg("--config").arg(self.folder().join("containerd.toml"));
        let old = std::env::var_os("PATH").unwrap_or_default();
        let mut path = self.config.path.clone();
        path.push(self.config.containerd.clone());
        path.extend(std::env::split_paths(&old));
        command.env("PATH", std::env::join_paths(path)?);
        command.envs(self.config.env.iter().cloned());
        if let Some(collector) = &self.config.collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
            command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
            command.env("OTEL_SERVICE_NAME", "containerd");
            command.env("OTEL_TRACES_SAMPLER", "always_on");
        }
        let log = self.folder().join("containerd.log");
        let daemon = self.namespaces.start("containerd", command, &log)?;
        let daemon = self.containerd.insert(daemon);
        let client = Client::new(&self.folder.path().join("containerd.sock"));
        until_ready(daemon, || async {
            let status = client.call(StatusRequest::default()).await?;
            Ok(status.status.conditions.iter().all(|condition| condition.status))
        })
        .await
    }

    /// Ends the snapshotter with a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn end_snapshotter(&mut self, signal: &str) -> Result<()> {
        self.snapshotter.take().context("the snapshotter does not run")?.end(signal)
    }

    /// Ends containerd with a signal; pods go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn end_containerd(&mut self, signal: &str) -> Result<()> {
        self.containerd.take().context("containerd does not run")?.end(signal)
    }

    /// Runs containerd's `ctr` in CRI's namespace.
    ///
    /// # Errors
    /// When it fails, with what it wrote.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        output(&mut self.ctr_command(args))
    }

    /// The command of [`Node::ctr`], with nothing on its input.
    pub fn ctr_command(&self, args: &[&str]) -> Command {
        let mut command = self.namespaces.command(self.config.containerd.join("ctr"));
        command.arg("--address").arg(self.folder().join("containerd.sock"));
        command.args(["--namespace", "k8s.io"]).args(args);
        command
    }

    /// Imports images, unpacked with our snapshotter, and waits until CRI knows them.
    ///
    /// # Errors
    /// When containerd refuses them.
    pub async fn import(&self, images: &[(&str, &NewImage)]) -> Result<()> {
        let folder = tempfile::tempdir_in(self.folder())?;
        let mut layout = LayoutBuilder::create(folder.path().join("layout"))?;
        let mut digests = Vec::new();
        for (name, image) in images {
            digests.push(layout.add(name, image)?.manifest_digest.to_oci());
        }
        let archive = folder.path().join("images.tar");
        write_archive(&layout.finish()?, &archive)?;
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", "--snapshotter", SNAPSHOTTER, &archive])?;
        for ((name, _), digest) in images.iter().zip(digests) {
            // As CRI does when it pulls: a name with the digest, too.
            let repository = name.rsplit_once(':').map_or(*name, |(repository, _)| repository);
            let pinned = format!("{repository}@{digest}");
            self.ctr(&["images", "tag", "--force", name, &pinned])?;
            self.until_known(name).await?;
            self.until_known(&pinned).await?;
        }
        Ok(())
    }

    /// Imports images of an OCI layout on this machine, by their names, so that only their digests name them: as where they were
    /// pulled by digest.
    ///
    /// # Errors
    /// When containerd refuses them.
    pub async fn import_layout(&self, layout: &Path, names: &[&str]) -> Result<()> {
        let archive = self.folder().join("layout.tar");
        output(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(layout).arg("."))?;
        self.ctr(&[
            "images",
            "import",
            "--snapshotter",
            SNAPSHOTTER,
            &archive.display().to_string(),
        ])?;
        std::fs::remove_file(&archive)?;
        for name in names {
            let listed = self.ctr(&["images", "ls", &format!("name=={name}")])?;
            let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
            let digest = digest.with_context(|| format!("no image {name}: {listed}"))?;
            let repository = name.rsplit_once(':').map_or(*name, |(repository, _)| repository);
            let pinned = format!("{repository}@{digest}");
            self.ctr(&["images", "tag", "--force", name, &pinned])?;
            self.until_known(&pinned).await?;
            self.forget_tag(name).await?;
        }
        Ok(())
    }

    /// `RemoveImage`: with all its names, and what only it needs.
    ///
    /// # Errors
    /// What CRI answered.
    pub async fn remove_image(&self, name: &str) -> Result<(), Status> {
        let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request =
            RemoveImageRequest { image: Some(image).into(), ..RemoveImageRequest::default() };
        self.containerd().call(request).await.map(|_| ())
    }

    /// Takes a tag from an imported image, so that only its digest names it: as where nobody has pulled it by tag.
    ///
    /// # Errors
    /// When there is no such name.
    pub async fn forget_tag(&self, name: &str) -> Result<()> {
        self.ctr(&["images", "rm", name])?;
        self.until(name, false).await
    }

    async fn until_known(&self, name: &str) -> Result<()> {
        self.until(name, true).await
    }

    /// CRI hears of images by events.
    async fn until(&self, name: &str, known: bool) -> Result<()> {
        let client = self.containerd();
        let begun = Instant::now();
        let image = || ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        loop {
            let request =
                ImageStatusRequest { image: Some(image()).into(), ..ImageStatusRequest::default() };
            if client.call(request).await?.image.is_some() == known {
                return Ok(());
            }
            if begun.elapsed() > READY_LIMIT {
                bail!("CRI has not heard of {name}: expected known to be {known}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether containerd has a snapshot with this key in CRI's namespace.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn has_snapshot(&self, key: &str) -> Result<bool, Status> {
        let request = StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: key.into(),
            ..StatSnapshotRequest::default()
        };
        match self.containerd().in_namespace("k8s.io").call(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }
}

async fn until_ready<F: Future<Output = Result<bool, Status>>>(
    daemon: &mut Daemon,
    ready: impl Fn() -> F,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        daemon.expect_running()?;
        let answer = ready().await;
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > READY_LIMIT {
            bail!("not ready in {} s: {answer:?}\n{}", READY_LIMIT.as_secs(), daemon.log());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("{command:?}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!("{command:?}: {status}\n{stdout}{}", String::from_utf8_lossy(&stderr));
    }
    Ok(stdout)
}
