//! Pods on a real Kubernetes: kubelet, scheduler, API server, with our snapshotter below them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ah_testkit_images::{ImageSpec, LayoutBuilder, busybox};
use ah_testkit_node::{Cluster, NodeConfig};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(180);
/// Names the folder with the Kubernetes programs: `cargo xtask test --kubernetes` sets it.
const PROGRAMS: &str = "ANCHORHOLD_KUBERNETES";

/// A program of this build: tests of other packages do not get its path from cargo.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join(name)
}

/// The folder of this build's target that xtask keeps things in.
fn target() -> PathBuf {
    program("any").ancestors().nth(2).unwrap().to_owned()
}

/// A cluster whose node has the handler `anchorhold-cc`, and a folder for the test's files.
async fn cluster() -> Option<(Cluster, TempDir)> {
    let programs = std::env::var_os(PROGRAMS);
    let missing = ah_testkit_node::missing();
    let missing = missing.or_else(|| {
        programs.is_none().then(|| format!("{PROGRAMS} is not set: cargo xtask test --kubernetes"))
    });
    if let Some(reason) = missing {
        eprintln!("skipped: {reason}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let shim_config = folder.path().join("shim.toml");
    let guest = target().join("guest-image");
    let text = format!(
        "confidential = true\ntee = \"software\"\nguest = {guest:?}\nsoftware_tee = {:?}\ntools = [{:?}]\n",
        folder.path().join("software-tee"),
        target().join("tools/bin"),
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

/// The pod's YAML with its policy, as an owner makes it.
fn with_policy(folder: &Path, yaml: &str, name: &str, image: &ImageSpec) -> String {
    let mut layout = LayoutBuilder::create(folder.join("layout")).unwrap();
    layout.add(name, image).unwrap();
    layout.finish().unwrap();
    let (pod, out) = (folder.join("pod.yaml"), folder.join("out.yaml"));
    fs::write(&pod, yaml).unwrap();
    let mut generate = Command::new(program("anchorhold"));
    generate.arg("--data").arg(folder.join("data")).arg("--cache").arg(folder.join("cache"));
    generate.args(["policy", "generate", "-f"]).arg(&pod);
    generate.arg("--images").arg(folder.join("layout")).arg("-o").arg(&out);
    let output = generate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(out).unwrap()
}

const RUNTIME_CLASS: &str = include_str!("../../../deploy/runtimeclass.yaml");

const CONFIDENTIAL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sealed}
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo hello from $(hostname); uname -r"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_vm_runs_and_is_heard() {
    let Some((cluster, _folder)) = cluster().await else { return };
    cluster.node().import(&[("localhost/busybox:1", &busybox().unwrap())]).await.unwrap();
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  containers:
  - name: main
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "echo hello from $(hostname); test -w /"]
"#;
    cluster.apply(pod).unwrap();
    assert_eq!(cluster.wait_for_end("plain", LIMIT).unwrap(), "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "plain"]).unwrap(), "hello from plain\n");
    cluster.kubectl(&["delete", "pod", "plain", "--grace-period=0"]).unwrap();
}

/// In one cluster, since one takes a while: the pod as its owner wrote it, and with one command more.
#[tokio::test(flavor = "multi_thread")]
async fn attack_a_changed_pod_is_refused_in_words_where_its_original_runs() {
    let Some((cluster, folder)) = cluster().await else { return };
    let image = busybox().unwrap();
    let pod = with_policy(folder.path(), CONFIDENTIAL, "localhost/busybox:1", &image);
    cluster.node().import(&[("localhost/busybox:1", &image)]).await.unwrap();
    cluster.node().forget_tag("localhost/busybox:1").await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
    let describe = || cluster.kubectl(&["describe", "pod", "sealed"]).unwrap();

    cluster.apply(&pod).unwrap();
    let phase = cluster.wait_for_end("sealed", LIMIT);
    let phase = phase.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));
    assert_eq!(phase, "Succeeded", "{}\n{}", describe(), cluster.node().logs());
    let logs = cluster.kubectl(&["logs", "sealed"]).unwrap();
    let host_kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let lines: Vec<&str> = logs.lines().collect();
    assert_eq!(lines[0], "hello from sealed");
    assert_ne!(lines[1], host_kernel.trim(), "it runs on the host's kernel");
    cluster.kubectl(&["delete", "pod", "sealed", "--grace-period=0"]).unwrap();

    let changed = pod.replace("uname -r", "uname -r; id");
    assert_ne!(changed, pod);
    cluster.apply(&changed).unwrap();
    assert_eq!(cluster.wait_for_end("sealed", LIMIT).unwrap(), "Failed");
    let told = describe();
    assert!(told.contains("CreateContainerRequest denied by the policy"), "{told}");
    assert!(told.contains("/OCI/Process/Args"), "{told}");
}
