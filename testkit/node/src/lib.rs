//! A node for tests: a real containerd with our snapshotter in a temporary folder, spoken to as the kubelet does.
//!
//! Everything runs in namespaces of its own for processes, mounts and network: ports, bridges and mounts of a test meet
//! no other's, and when a [`Node`] is dropped the kernel ends every process of it, whatever state it was in.
#![forbid(unsafe_code)]

mod cluster;
mod config;
mod namespaces;
mod node;
mod pods;

pub use cluster::Cluster;
pub use config::NodeConfig;
pub use namespaces::{Daemon, Namespaces};
pub use node::{Node, SNAPSHOTTER};
pub use pods::{Container, Pod, PodConfig};

/// Environment variable: a test that cannot run fails, where a skip would read as done (`cargo xtask soak pods`, `test --kubernetes`).
const REQUIRED: &str = "ANCHORHOLD_TEST_NODE_REQUIRED";

/// Whether a test of a node cannot run here, for what [`missing`] says or for `more`; the reason is printed.
///
/// # Panics
/// Where `ANCHORHOLD_TEST_NODE_REQUIRED` is set: nobody is to take a skipped test for one that passed.
pub fn is_skipped(more: Option<String>) -> bool {
    let Some(reason) = missing().or(more) else { return false };
    assert!(std::env::var_os(REQUIRED).is_none(), "this test has to run, and cannot: {reason}");
    eprintln!("skipped: {reason}");
    true
}

/// Why tests of a node cannot run here, if so: a reason to print.
pub fn missing() -> Option<String> {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|text| text.lines().any(|l| l.starts_with("Uid:\t0\t0")));
    if !root {
        return Some("not root: containerd needs root".into());
    }
    let programs = ["/usr/bin/containerd", "/usr/sbin/runc", "/usr/bin/ctr", "/usr/lib/cni/bridge"];
    let absent = programs.iter().find(|path| !std::path::Path::new(path).exists());
    absent.map(|path| format!("{path} is missing: `cargo xtask setup` installs it"))
}
