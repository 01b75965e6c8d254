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

async fn node() -> Option<Node> {
    if ah_testkit_node::is_skipped(None) {
        return None;
    }
    Some(Node::start(NodeConfig::new(env!("CARGO_BIN_EXE_anchorhold-snapshotter"))).await.unwrap())
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

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_blob_is_told_and_keeps_nobody_else_from_running() {
    let Some(mut node) = node().await else { return };
    let image = image();
    node.import(&[(IMAGE, &image)]).await.unwrap();
    let chain = chain_id(&image);
    assert_eq!(checked(&layers(&prepare(&node, "before", &chain).await)), root_hashes(&image));

    node.end_snapshotter("TERM").unwrap();
    forget_images(&node);
    let blob = blob_of_top_layer(&node, &image);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[600] ^= 1;
    fs::write(&blob, &bad).unwrap();
    node.start_snapshotter().await.unwrap();

    let mounts = prepare(&node, "broken", &chain).await;
    let error = layers(&mounts).images().unwrap_err().to_string();
    assert!(error.starts_with("layer 1 of 3 from the top has no block image: blob "), "{error}");
    assert!(error.contains("is damaged: blob digest differs"), "{error}");
    assert_eq!(output_of_ctr(&node), "new\n");

    // Once the blob is whole the next container has its layer.
    fs::write(&blob, &good).unwrap();
    assert_eq!(checked(&layers(&prepare(&node, "whole", &chain).await)), root_hashes(&image));

    // A blob that is gone is told, too.
    node.end_snapshotter("TERM").unwrap();
    forget_images(&node);
    fs::remove_file(&blob).unwrap();
    node.start_snapshotter().await.unwrap();
    let error = layers(&prepare(&node, "gone", &chain).await).images().unwrap_err().to_string();
    assert!(error.contains("containerd"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_next_attempt_is_made() {
    let Some(mut node) = node().await else { return };
    let image = image();
    node.import(&[(IMAGE, &image)]).await.unwrap();
    let chain = chain_id(&image);
    prepare(&node, "before", &chain).await;

    node.end_snapshotter("TERM").unwrap();
    let folder = node.snapshotter_root().join("layers");
    let mut mount = node.namespaces().command("mount");
    mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&folder);
    assert!(mount.status().unwrap().success());
    node.start_snapshotter().await.unwrap();
    let error = layers(&prepare(&node, "full", &chain).await).images().unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");

    let mut mount = node.namespaces().command("mount");
    assert!(mount.args(["-o", "remount,size=64m"]).arg(&folder).status().unwrap().success());
    let layers = layers(&prepare(&node, "room", &chain).await);
    // The files are in the node's mount namespace.
    let found: Vec<Sha256> = layers.images().unwrap().iter().map(|i| i.info.root_hash).collect();
    assert_eq!(found, root_hashes(&image));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_layers_are_converted_leaves_nothing_half_made() {
    let Some(mut node) = node().await else { return };
    let files = (0..8).map(|i| Entry::file(format!("file{i}"), random_bytes(i, 8 << 20)));
    let image = busybox().unwrap().with_layer(LayerSpec::of(Packing::Plain, files));
    let chain = chain_id(&image);
    node.import(&[(IMAGE, &image)]).await.unwrap();
    // Whatever was done when it is killed: the store serves afterwards, and has no file that is not finished.
    for key in ["first", "second"] {
        node.end_snapshotter("KILL").unwrap();
        forget_images(&node);
        node.start_snapshotter().await.unwrap();
        let begun = Instant::now();
        while !node.logs().contains("listening") || all_files(&node).iter().all(|p| !is_temp(p)) {
            if begun.elapsed() > Duration::from_secs(5) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        node.end_snapshotter("KILL").unwrap();
        node.start_snapshotter().await.unwrap();
        let own = layers(&prepare(&node, key, &chain).await);
        assert_eq!(checked(&own), root_hashes(&image));
        assert!(!all_files(&node).iter().any(|path| is_temp(path)), "{:?}", all_files(&node));
    }
}

fn is_temp(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp"))
}

/// As if nothing had been converted. The snapshotter must not run.
fn forget_images(node: &Node) {
    for path in all_files(node) {
        fs::remove_file(path).unwrap();
    }
}

fn blob_of_top_layer(node: &Node, image: &ImageSpec) -> PathBuf {
    // The top layer is packed as it is: its blob is its tar.
    let digest = Sha256::of(&image.layers.last().unwrap().tar).to_string();
    node.folder().join("root/io.containerd.content.v1.content/blobs/sha256").join(digest)
}

fn output_of_ctr(node: &Node) -> String {
    let script = ["sh", "-c", "cat /old/new; echo"];
    let mut args = vec!["run", "--rm", "--snapshotter", SNAPSHOTTER, IMAGE, "ctr-broken"];
    args.extend(script);
    node.ctr(&args).unwrap()
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// The block images that are there.
fn image_files(node: &Node) -> Vec<PathBuf> {
    let mut files = all_files(node);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "image"));
    files.sort();
    files
}

fn all_files(node: &Node) -> Vec<PathBuf> {
    let folder = node.snapshotter_root().join("layers");
    let mut files = Vec::new();
    for version in entries(&folder) {
        let version = folder.join(version);
        files.extend(entries(&version).into_iter().map(|name| version.join(name)));
    }
    files
}
