//! Pods on a real Kubernetes: kubelet, scheduler, API server, with our snapshotter below them.

use std::path::PathBuf;
use std::time::Duration;

use ah_testkit_images::busybox;
use ah_testkit_node::{Cluster, NodeConfig};

const LIMIT: Duration = Duration::from_secs(180);
/// Names the folder with the Kubernetes programs: `cargo xtask test --kubernetes` sets it.
const PROGRAMS: &str = "ANCHORHOLD_KUBERNETES";

/// A program of this build: tests of other packages do not get its path from cargo.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join(name)
}

async fn cluster() -> Option<Cluster> {
    let programs = std::env::var_os(PROGRAMS);
    let missing = ah_testkit_node::missing();
    let missing = missing.or_else(|| {
        programs.is_none().then(|| format!("{PROGRAMS} is not set: cargo xtask test --kubernetes"))
    });
    if let Some(reason) = missing {
        eprintln!("skipped: {reason}");
        return None;
    }
    let config = NodeConfig::new(program("anchorhold-snapshotter"));
    Some(Cluster::start(config, &PathBuf::from(programs.unwrap())).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_vm_runs_and_is_heard() {
    let Some(cluster) = cluster().await else { return };
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
