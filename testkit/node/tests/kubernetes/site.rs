//! A cluster, its owner's commands and key service: what every test here needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use ah_testkit_images::{ImageSpec, LayoutBuilder, busybox};
use ah_testkit_node::{Cluster, NodeConfig};
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Names the folder with the Kubernetes programs: `cargo xtask test --kubernetes` sets it.
pub(crate) const PROGRAMS: &str = "ANCHORHOLD_KUBERNETES";
/// Where the owner's key service listens, in a test's folder.
pub(crate) const KEY_SOCKET: &str = "keys.sock";

/// A program of this build: tests of other packages do not get its path from cargo.
pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join(name)
}

/// The folder of this build's target that xtask keeps things in.
pub(crate) fn target() -> PathBuf {
    program("any").ancestors().nth(2).unwrap().to_owned()
}

/// A cluster whose node has the handler `anchorhold-cc`, and a folder for the test's files.
pub(crate) async fn cluster() -> Option<(Cluster, TempDir)> {
    let programs = std::env::var_os(PROGRAMS);
    let no_programs = || format!("{PROGRAMS} is not set: cargo xtask test --kubernetes");
    if ah_testkit_node::is_skipped(programs.is_none().then(no_programs)) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let shim_config = folder.path().join("shim.toml");
    let guest = target().join("guest-image");
    let text = format!(
        "confidential = true\ntee = \"software\"\nguest = {guest:?}\nsoftware_tee = {:?}\ntools = [{:?}]\n\
         key_service = \"unix:{}\"\nscratch_folder = {:?}\nmetrics_events = {:?}\n",
        // where `anchorhold --data` has it
        folder.path().join("data/software-tee"),
        target().join("tools/bin"),
        folder.path().join(KEY_SOCKET).display(),
        folder.path().join("scratch"),
        folder.path().join("events.sock"),
    );
    fs::write(&shim_config, text).unwrap();
    let config = NodeConfig::new(program("anchorhold-snapshotter")).with_handler(
        "anchorhold-cc",
        &program("containerd-shim-anchorhold-v2"),
        &shim_config,
    );
    let cluster = Cluster::start(config, &PathBuf::from(programs.unwrap())).await.unwrap();
    Some((cluster, folder))
}

/// The owner's `anchorhold`, with all its files in a folder.
pub(crate) fn anchorhold(folder: &Path) -> Command {
    let mut command = Command::new(program("anchorhold"));
    command.arg("--data").arg(folder.join("data")).arg("--cache").arg(folder.join("cache"));
    command
}

pub(crate) fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The pod's YAML with its policy, as an owner makes it, with images of a layout.
pub(crate) fn with_policy_of(folder: &Path, yaml: &str, layout: &Path) -> PathBuf {
    let (pod, out) = (folder.join("pod.yaml"), folder.join("out.yaml"));
    fs::write(&pod, yaml).unwrap();
    let mut generate = anchorhold(folder);
    generate.args(["policy", "generate", "-f"]).arg(&pod);
    succeeds(generate.arg("--images").arg(layout).arg("-o").arg(&out));
    out
}

pub(crate) fn with_policy(folder: &Path, yaml: &str, name: &str, image: &ImageSpec) -> String {
    let mut layout = LayoutBuilder::create(folder.join("layout")).unwrap();
    layout.add(name, image).unwrap();
    layout.finish().unwrap();
    fs::read_to_string(with_policy_of(folder, yaml, &folder.join("layout"))).unwrap()
}

/// A pod of busybox with its policy, on a node that has the image by its digest alone.
pub(crate) async fn confidential(cluster: &Cluster, folder: &Path, yaml: &str) -> String {
    const NAME: &str = "localhost/busybox:1";
    let image = busybox().unwrap();
    let pod = with_policy(folder, yaml, NAME, &image);
    cluster.node().import(&[(NAME, &image)]).await.unwrap();
    cluster.node().forget_tag(NAME).await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
    pod
}

/// The owner's key service while a test lasts.
pub(crate) struct KeyServe(Child);

impl KeyServe {
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = folder.join(KEY_SOCKET);
        let mut serve = anchorhold(folder);
        serve.args(["key", "serve", "--danger-accept-software-tee", "--listen"]);
        serve.arg(format!("unix:{}", socket.display()));
        let log = fs::File::create(folder.join("key-serve.log")).unwrap();
        let mut child = serve.stderr(log).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "the key service has ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(child)
    }
}

impl Drop for KeyServe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) const RUNTIME_CLASS: &str = include_str!("../../../../deploy/runtimeclass.yaml");

/// Shims and VMs are gone some time after their pods.
pub(crate) fn until_no_vm_is_left(cluster: &Cluster) {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -E '^[^ ]*(qemu-system|vhost-device-vsock|shim-anchorhold)'; done";
    let begun = std::time::Instant::now();
    loop {
        let left = cluster.node().namespaces().command("sh").args(["-c", script]).output().unwrap();
        if left.stdout.is_empty() {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{}", String::from_utf8_lossy(&left.stdout));
        std::thread::sleep(Duration::from_millis(200));
    }
}
