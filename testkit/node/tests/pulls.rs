//! Images that a real containerd pulls, with our snapshotter, from a registry that sends slowly or nothing more.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ah_containerd_api::cri::{ImageSpec, PullImageRequest};
use ah_containerd_api::snapshots::ListSnapshotsRequest;
use ah_containerd_api::{Code, Status};
use ah_testkit_images::{Entry, LayerSpec, LayoutBuilder, Packing, busybox, random_bytes};
use ah_testkit_node::{Daemon, Node, NodeConfig, SNAPSHOTTER};

const LIMIT: Duration = Duration::from_secs(120);
/// How long the kubelet of this test waits for a pull: its call ends then.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the layer that is sent slowly.
const LAYER_BYTES: usize = 2 << 20;

/// A node, and a registry on its loopback with one image of two layers.
struct Site {
    node: Node,
    pace: PathBuf,
    _registry: Daemon,
    image: String,
}

/// The folder of this build: tests of other packages do not get its programs' paths from cargo.
fn config() -> NodeConfig {
    let tests = std::env::current_exe().unwrap();
    let build = tests.parent().unwrap().parent().unwrap();
    NodeConfig::new(build.join("anchorhold-snapshotter"))
}

impl Site {
    async fn start(pace: &str) -> Option<Self> {
        if ah_testkit_node::is_skipped(None) {
            return None;
        }
        Some(Self::start_with(pace, config()).await)
    }

    async fn start_with(pace: &str, config: NodeConfig) -> Self {
        let node = Node::start(config).await.unwrap();
        let file = Entry::file("data", random_bytes(7, LAYER_BYTES));
        let image = busybox().unwrap().with_layer(LayerSpec::of(Packing::Plain, [file]));
        let mut layout = LayoutBuilder::create(node.folder().join("layout")).unwrap();
        layout.add("slow:1", &image).unwrap();
        let (layout, pace_file) = (layout.finish().unwrap(), node.folder().join("pace"));
        fs::write(&pace_file, pace).unwrap();
        let mut command = node.namespaces().command(env!("CARGO_BIN_EXE_slow-registry"));
        command.arg(layout).arg(&pace_file);
        let log = node.folder().join("registry.log");
        let registry = node.namespaces().start("slow-registry", command, &log).unwrap();
        let begun = Instant::now();
        let address = loop {
            if let Some((line, _)) = registry.log().split_once('\n') {
                break line.to_owned();
            }
            assert!(begun.elapsed() < LIMIT, "the registry does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let image = format!("{address}/slow:1");
        Self { node, pace: pace_file, _registry: registry, image }
    }

    /// In one step: the registry reads it at any time.
    fn set_pace(&self, pace: &str) {
        let next = self.pace.with_extension("next");
        fs::write(&next, pace).unwrap();
        fs::rename(next, &self.pace).unwrap();
    }

    async fn pull(&self) -> Result<String, Status> {
        let image = ImageSpec { image: self.image.clone(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(image).into(), ..PullImageRequest::default() };
        Ok(self.node.containerd().call(request).await?.image_ref)
    }

    /// Keys of the snapshots that containerd has, sorted.
    async fn snapshots(&self) -> Vec<String> {
        let snapshotter = SNAPSHOTTER.into();
        let request = ListSnapshotsRequest { snapshotter, ..ListSnapshotsRequest::default() };
        let client = self.node.containerd().in_namespace("k8s.io");
        let mut answers = client.stream(request).await.unwrap();
        let mut keys = Vec::new();
        while let Some(answer) = answers.next().await.unwrap() {
            keys.extend(answer.info.into_iter().map(|info| info.name));
        }
        keys.sort();
        keys
    }

    /// Folders of snapshots and block images that our snapshotter has.
    fn files(&self) -> [usize; 2] {
        ["snapshots", "layers"]
            .map(|name| fs::read_dir(self.node.snapshotter_root().join(name)).unwrap().count())
    }

    /// containerd collects what is no longer used on its own time.
    async fn until_as_before(&self, before: &(Vec<String>, [usize; 2])) {
        let begun = Instant::now();
        loop {
            let now = (self.snapshots().await, self.files());
            if now == *before {
                return;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "found {now:?}, before {before:?}\n{}",
                self.node.logs()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pull_goes_on_to_its_end() {
    // a second and a half
    let Some(site) = Site::start("16384").await else { return };
    let digest = site.pull().await.unwrap();
    assert!(digest.contains("sha256:"), "{digest}");
    let printed = site.node.ctr(&[
        "run",
        "--rm",
        "--snapshotter",
        SNAPSHOTTER,
        &site.image,
        "pulled",
        "wc",
        "-c",
        "/data",
    ]);
    assert_eq!(printed.unwrap(), format!("{LAYER_BYTES} /data\n"));
}

/// Whoever asked has gone: what was begun must not stay, nor be in the way of the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_stalls_ends_with_its_call_and_leaves_nothing() {
    let Some(site) = Site::start("stall").await else { return };
    let before = (site.snapshots().await, site.files());
    let stalled = tokio::time::timeout(PATIENCE, site.pull()).await;
    assert!(stalled.is_err(), "{stalled:?}");
    site.until_as_before(&before).await;

    site.set_pace("1048576");
    let pulled = tokio::time::timeout(LIMIT, site.pull()).await.expect("the next attempt ends");
    pulled.unwrap();
    assert!(site.snapshots().await.len() > before.0.len());
    site.node.remove_image(&site.image).await.unwrap();
    site.until_as_before(&before).await;
}

/// A registry that goes away in the middle of a layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_cut_off_is_told_and_leaves_nothing() {
    let Some(site) = Site::start("stall").await else { return };
    let before = (site.snapshots().await, site.files());
    let pull = tokio::time::timeout(LIMIT, site.pull());
    let cut = async {
        let begun = Instant::now();
        while site.snapshots().await.len() == before.0.len() {
            assert!(begun.elapsed() < LIMIT, "nothing was begun");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // no pace: the registry drops the connection
        fs::remove_file(&site.pace).unwrap();
    };
    let (told, ()) = tokio::join!(pull, cut);
    let error = told.expect("a pull that is cut off ends").unwrap_err();
    assert_ne!(error.code(), Code::Cancelled);
    assert!(error.message().contains(&site.image), "{error}");
    assert!(error.message().contains("EOF"), "{error}");
    site.until_as_before(&before).await;
}

/// Nobody else ends it: the kubelet waits for as long as containerd does.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_stalls_is_given_up_by_containerd_and_leaves_nothing() {
    if ah_testkit_node::is_skipped(None) {
        return;
    }
    let config = NodeConfig { pull_progress_limit: Duration::from_secs(2), ..config() };
    let mut defaults = Command::new(config.containerd.join("containerd"));
    let told = defaults.args(["config", "default"]).output().unwrap();
    if !String::from_utf8_lossy(&told.stdout).contains("image_pull_progress_timeout") {
        println!("skipped: containerd before 1.7 has no limit for pulls without progress");
        return;
    }
    let site = Site::start_with("stall", config).await;
    let before = (site.snapshots().await, site.files());
    let told = tokio::time::timeout(LIMIT, site.pull()).await.expect("containerd gives up");
    let error = told.unwrap_err();
    assert!(error.message().contains(&site.image), "{error}");
    site.until_as_before(&before).await;
}
