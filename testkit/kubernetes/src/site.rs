//! The node that is measured, and pods on it.

use std::path::Path;
use std::time::{Duration, Instant};

use ah_testkit_images::busybox;
use ah_testkit_node::{Container, Node, NodeConfig, Pod, PodConfig};
use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::Options;

pub(crate) const IMAGE: &str = "localhost/busybox:1";
/// runc's handler, which containerd takes where none is named.
pub(crate) const RUNC: &str = "";
/// Pods in VMs without a policy: rows of pods say so, as one with a policy has more to do.
pub(crate) const VM: &str = "vm";
/// The same with a larger VM.
pub(crate) const LARGE_VM: &str = "vm-large";
/// What the handlers' VMs have for containers, MiB, and beside it.
pub(crate) const MEMORY_MIB: u32 = 64;
pub(crate) const LARGE_MEMORY_MIB: u32 = 1856;
pub(crate) const OVERHEAD_MIB: u32 = 192;

/// How long anything may take before it counts as failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
pub(crate) const POLL: Duration = Duration::from_millis(2);

pub(crate) struct Site {
    pub(crate) node: Node,
    /// Dropped behind the node: files of its shims are in it.
    _settings: TempDir,
}

/// A pod with one container that runs.
pub(crate) struct Running {
    pub(crate) pod: Pod,
    pub(crate) container: Container,
}

impl Site {
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        if let Some(reason) = ah_testkit_node::missing() {
            bail!("{reason}");
        }
        let settings = tempfile::tempdir()?;
        let shim = options.programs.join("containerd-shim-anchorhold-v2");
        let mut config = NodeConfig::new(options.programs.join("anchorhold-snapshotter"));
        for (name, memory_mib) in [(VM, MEMORY_MIB), (LARGE_VM, LARGE_MEMORY_MIB)] {
            let file = settings.path().join(format!("{name}.toml"));
            std::fs::write(&file, shim_toml(options, settings.path(), memory_mib))?;
            config = config.with_handler(name, &shim, &file);
        }
        let node = Node::start(config).await?;
        node.import(&[(IMAGE, &busybox()?)]).await?;
        Ok(Self { node, _settings: settings })
    }

    /// Starts a pod with one container and waits for its first output; gives the seconds that this took, too.
    pub(crate) async fn run(&self, handler: &str, script: &str) -> Result<(Running, f64)> {
        let name = if handler == RUNC { "runc" } else { handler };
        let begun = Instant::now();
        let pod = self.node.run_pod(&PodConfig::new(name, handler)).await;
        let pod = pod.with_context(|| self.node.logs())?;
        let main = pod.container("main", IMAGE, &["sh", "-c", script]);
        let container = pod.create(main).await.with_context(|| self.node.logs())?;
        container.start().await?;
        until(&container, |text| !text.is_empty()).await?;
        Ok((Running { pod, container }, begun.elapsed().as_secs_f64()))
    }
}

/// Waits until what a container has printed is as wanted.
pub(crate) async fn until(container: &Container, reached: impl Fn(&str) -> bool) -> Result<()> {
    let begun = Instant::now();
    while !container.output().is_ok_and(|text| reached(&text)) {
        ensure!(begun.elapsed() < LIMIT, "not printed within {LIMIT:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn shim_toml(options: &Options, folder: &Path, memory_mib: u32) -> String {
    format!(
        "confidential = false\ntee = \"software\"\nguest = {:?}\nsoftware_tee = {:?}\ntools = [{:?}]\nmemory_mib = {memory_mib}\n\
         overhead_mib = {OVERHEAD_MIB}\nscratch_folder = {:?}\nmetrics_events = {:?}\nboot_limit_seconds = {}\n",
        options.guest,
        folder.join("tee"),
        options.tools,
        folder.join("scratch"),
        folder.join("events.sock"),
        LIMIT.as_secs(),
    )
}
