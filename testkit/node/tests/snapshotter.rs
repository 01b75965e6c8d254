//! A real containerd with our snapshotter: what is unpacked is converted, to the bytes that an owner computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ah_containerd_api::snapshots::{
    PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use ah_containerd_api::types::Mount;
use ah_containerd_api::{Client, Code};
use ah_convert::root_hash;
use ah_digest::Sha256;
use ah_layers::SnapshotLayers;
use ah_oci::LayerMediaType;
use ah_testkit_images::{Entry, ImageSpec, LayerSpec, Packing, busybox, random_bytes};
use ah_testkit_node::{Node, NodeConfig, PodConfig, SNAPSHOTTER};

const IMAGE: &str = "localhost/layers:1";
const LIMIT: Duration = Duration::from_secs(60);

/// The snapshotter of this build: tests of other packages do not get its path from cargo.
fn snapshotter() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("anchorhold-snapshotter")
}

async fn node() -> Option<Node> {
    if let Some(reason) = ah_testkit_node::missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(Node::start(NodeConfig::new(snapshotter())).await.unwrap())
}

/// Busybox with two more layers, each packed in another way; the upper one takes away what the lower ones have.
fn image() -> ImageSpec {
    let lower = [
        Entry::dir("data/"),
        Entry::file("data/many", random_bytes(1, 300_000)).mode(0o640),
        Entry::hard_link("data/again", "data/many"),
        Entry::file("data/gone", "gone"),
        Entry::dir("old/"),
        Entry::file("old/file", "old"),
    ];
    let upper = [
        Entry::file("data/.wh.gone", ""),
        Entry::dir("old/"),
        Entry::file("old/.wh..wh..opq", ""),
        Entry::file("old/new", "new"),
    ];
    busybox()
        .unwrap()
        .with_layer(LayerSpec::of(Packing::Zstd, lower))
        .with_layer(LayerSpec::of(Packing::Plain, upper))
}

/// What the owner pins, top layer first.
fn root_hashes(image: &ImageSpec) -> Vec<Sha256> {
    let hash = |layer: &LayerSpec| {
        let tar: &[u8] = &layer.tar;
        let diff_id = Sha256::of(tar);
        root_hash(tar, LayerMediaType::Tar, &diff_id).unwrap().info.root_hash
    };
    image.layers.iter().rev().map(hash).collect()
}

fn chain_id(image: &ImageSpec) -> String {
    let mut chain = String::new();
    for layer in &image.layers {
        let diff_id = Sha256::of(&layer.tar).to_oci();
        chain = match chain.as_str() {
            "" => diff_id,
            below => Sha256::of(format!("{below} {diff_id}")).to_oci(),
        };
    }
    chain
}

async fn prepare(node: &Node, key: &str, parent: &str) -> Vec<Mount> {
    let request = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        parent: parent.into(),
        ..PrepareSnapshotRequest::default()
    };
    let begun = Instant::now();
    loop {
        match client(node).call(request.clone()).await {
            Ok(response) => return response.mounts,
            // containerd waits a while before it connects to a snapshotter again that was away.
            Err(status) if status.code() == Code::Unavailable && begun.elapsed() < LIMIT => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(status) => panic!("{status}\n{}", node.logs()),
        }
    }
}

async fn remove(node: &Node, key: &str) {
    let request = RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        ..RemoveSnapshotRequest::default()
    };
    client(node).call(request).await.unwrap();
}

fn client(node: &Node) -> Client {
    node.containerd().in_namespace("k8s.io")
}

fn layers(mounts: &[Mount]) -> SnapshotLayers {
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].type_, "overlay");
    SnapshotLayers::of_mount(&mounts[0].options).unwrap()
}

/// The root hashes of what stands beside a snapshot, each image checked byte by byte.
fn checked(layers: &SnapshotLayers) -> Vec<Sha256> {
    let images = layers.images().unwrap();
    for image in &images {
        image.check().unwrap();
    }
    images.into_iter().map(|image| image.info.root_hash).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_have_the_root_hashes_that_owners_compute() {
    let Some(node) = node().await else { return };
    let image = image();
    node.import(&[(IMAGE, &image)]).await.unwrap();
    let (chain, expect) = (chain_id(&image), root_hashes(&image));

    let mounts = prepare(&node, "own", &chain).await;
    let own = layers(&mounts);
    assert!(own.writable);
    assert_eq!(checked(&own), expect, "{}", node.logs());

    let view = ViewSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: "view".into(),
        parent: chain,
        ..ViewSnapshotRequest::default()
    };
    let view = layers(&client(&node).call(view).await.unwrap().mounts);
    assert!(!view.writable);
    assert_eq!(view.images().unwrap(), own.images().unwrap());

    // The same mount is a real one.
    let target = node.folder().join("target");
    fs::create_dir(&target).unwrap();
    let mut mount = node.namespaces().command("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &mounts[0].options.join(",")]).arg(&target);
    assert!(mount.status().unwrap().success());
    let mut list = node.namespaces().command("ls");
    let listed = list.arg(target.join("data")).arg(target.join("old")).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let names: Vec<&str> = listed.lines().filter(|line| !line.contains('/')).collect();
    assert_eq!(names, ["again", "many", "", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_without_a_vm_run_on_it() {
    let Some(node) = node().await else { return };
    node.import(&[(IMAGE, &image())]).await.unwrap();
    let pod = node.run_pod(&PodConfig::new("plain", "")).await.unwrap();
    let script = "echo hello > /new; cat /new; exit 7";
    let config = pod.container("main", IMAGE, &["sh", "-c", script]);
    let container = pod.create(config).await.unwrap();
    container.start().await.unwrap();
    assert_eq!(container.wait(LIMIT).await.unwrap(), 7);
    assert_eq!(container.output().unwrap(), "hello\n");
    container.remove(0).await.unwrap();
    pod.remove().await.unwrap();

    // ctr, with a view and with a snapshot of its own.
    let run = |flag: &[&str], script: &str| {
        let mut args = vec!["run", "--rm", "--snapshotter", SNAPSHOTTER];
        args.extend(flag);
        args.extend([IMAGE, "ctr-test", "sh", "-c", script]);
        node.ctr(&args).unwrap()
    };
    assert_eq!(run(&[], "echo a > /a; cat /a"), "a\n");
    assert_eq!(run(&["--read-only"], "echo a > /a || echo refused"), "refused\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_snapshotter_comes_back_with_everything() {
    let Some(mut node) = node().await else { return };
    let image = image();
    node.import(&[(IMAGE, &image)]).await.unwrap();
    let (chain, expect) = (chain_id(&image), root_hashes(&image));
    let before = checked(&layers(&prepare(&node, "before", &chain).await));
    assert_eq!(before, expect);
    let made: Vec<_> = image_files(&node).iter().map(|path| modified(path)).collect();

    node.end_snapshotter("KILL").unwrap();
    node.start_snapshotter().await.unwrap();
    let after = checked(&layers(&prepare(&node, "after", &chain).await));
    assert_eq!(after, expect);
    // Nothing was converted again.
    let still: Vec<_> = image_files(&node).iter().map(|path| modified(path)).collect();
    assert_eq!(still, made);

    // An image that is damaged or gone is made again.
    node.end_snapshotter("TERM").unwrap();
    for path in image_files(&node) {
        fs::remove_file(path).unwrap();
    }
    node.start_snapshotter().await.unwrap();
    assert_eq!(checked(&layers(&prepare(&node, "again", &chain).await)), expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_drops_is_gone() {
    let Some(node) = node().await else { return };
    let snapshots = node.snapshotter_root().join("snapshots");
    let image = image().with_layer(LayerSpec::of(Packing::Gzip, [Entry::file("one", "more")]));
    // The layers of the pause image stay.
    let (kept_snapshots, chain) = (entries(&snapshots).len(), chain_id(&image));
    node.import(&[(IMAGE, &image)]).await.unwrap();
    prepare(&node, "own", &chain).await;
    assert_eq!(entries(&snapshots).len(), kept_snapshots + 2 * image.layers.len());
    assert_eq!(image_files(&node).len(), image.layers.len());

    remove(&node, "own").await;
    node.remove_image(IMAGE).await.unwrap();
    let begun = Instant::now();
    while entries(&snapshots).len() > kept_snapshots || image_files(&node).len() > 1 {
        assert!(begun.elapsed() < LIMIT, "{:?} {:?}", entries(&snapshots), image_files(&node));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!node.has_snapshot(&chain).await.unwrap());
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// The block images that are there.
fn image_files(node: &Node) -> Vec<PathBuf> {
    let folder = node.snapshotter_root().join("layers");
    let mut files = Vec::new();
    for version in entries(&folder) {
        let version = folder.join(version);
        files.extend(entries(&version).into_iter().map(|name| version.join(name)));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "image"));
    files.sort();
    files
}
