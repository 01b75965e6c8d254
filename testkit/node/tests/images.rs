//! A policy of images that a real containerd has, by the names that it has for them.

use std::path::PathBuf;
use std::process::{Command, Output};

use ah_testkit_images::busybox;
use ah_testkit_node::{Node, NodeConfig};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  containers:\n  - {name: web, image: \"localhost/busybox:1\", command: [sleep, \"1\"]}\n";

/// The folder of this build: tests of other packages do not get its programs' paths from cargo.
fn build() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_taken_from_containerd_by_their_names() {
    if ah_testkit_node::is_skipped(None) {
        return;
    }
    let node = Node::start(NodeConfig::new(build().join("anchorhold-snapshotter"))).await.unwrap();
    node.import(&[("localhost/busybox:1", &busybox().unwrap())]).await.unwrap();
    let desk = tempfile::tempdir().unwrap();
    std::fs::write(desk.path().join("pod.yaml"), POD).unwrap();
    let generate = |options: &[&str]| -> Output {
        let mut command = Command::new(build().join("anchorhold"));
        command.args(["policy", "generate", "-f", "pod.yaml", "--offline"]).args(options);
        command.args(["--key-service", "none"]).current_dir(desk.path());
        command.env("ANCHORHOLD_DATA", desk.path().join("data"));
        command.env("ANCHORHOLD_CACHE", desk.path().join("cache")).output().unwrap()
    };
    let socket = node.folder().join("containerd.sock").display().to_string();
    let made = generate(&["--containerd", &socket]);
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(text.contains("image: \"localhost/busybox:1@sha256:"), "{text}");
    // the names of another namespace are not there, and what is no containerd says so
    let other = generate(&["--containerd", &socket, "--containerd-namespace", "other"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("not at hand"));
    let none = generate(&["--containerd", "/nothing"]);
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(told.contains("containerd at /nothing did not answer"), "{told}");
    assert!(told.contains("hint: "), "{told}");
    assert!(!other.status.success() && !none.status.success());
}
