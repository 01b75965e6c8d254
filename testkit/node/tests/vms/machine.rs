//! A node with pods in VMs, and what it holds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ah_containerd_api::cri::PodSandboxState;
use ah_testkit_images::busybox;
use ah_testkit_node::{Node, NodeConfig, Pod, PodConfig};
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);
pub(crate) const IMAGE: &str = "localhost/busybox:1";
/// A name that an image has for a moment.
pub(crate) const PASSING: &str = "localhost/passing:1";

/// The folder of this build: tests of other packages do not get its programs' paths from cargo.
pub(crate) fn build() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().to_owned()
}

/// A node whose handlers are `vm` (no policy needed) and `vm-cc` (confidential).
pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) settings: TempDir,
}

pub(crate) async fn machine() -> Option<Machine> {
    machine_with(&[]).await
}

/// A node whose shims are told more: keys and values.
pub(crate) async fn machine_with(more: &[(&str, &str)]) -> Option<Machine> {
    machine_of(more, None).await
}

/// And whose spans go to a collector.
pub(crate) async fn machine_of(more: &[(&str, &str)], collector: Option<&str>) -> Option<Machine> {
    let more: String = more.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let target = build().parent().unwrap().to_owned();
    let guest = target.join("guest-image");
    let no_guest = || format!("{} is missing: `cargo xtask setup` makes it", guest.display());
    let absent = !guest.join("vmlinuz").is_file();
    if ah_testkit_node::is_skipped(absent.then(no_guest)) {
        return None;
    }
    let settings = tempfile::tempdir().unwrap();
    let handler = |name: &str, confidential: bool| {
        let file = settings.path().join(format!("{name}.toml"));
        let text = format!(
            "confidential = {confidential}\ntee = \"software\"\nguest = {guest:?}\n\
             software_tee = {:?}\ntools = [{:?}]\nmemory_mib = 64\nscratch_folder = {:?}\nmetrics_events = {:?}\n{more}",
            settings.path().join("tee"),
            target.join("tools/bin"),
            settings.path().join("scratch"),
            settings.path().join("events.sock"),
        );
        std::fs::write(&file, text).unwrap();
        let toml = format!(
            "runtime_type = \"io.containerd.anchorhold.v2\"\n\
             pod_annotations = [\"io.katacontainers.*\", \"anchorhold.dev/*\"]\n\
             options = {{ ConfigPath = {file:?} }}\n"
        );
        (name.to_owned(), toml)
    };
    let config = NodeConfig {
        runtimes: vec![handler("vm", false), handler("vm-cc", true)],
        path: vec![build()],
        metrics_events: Some(settings.path().join("events.sock")),
        collector: collector.map(str::to_owned),
        ..NodeConfig::new(build().join("anchorhold-snapshotter"))
    };
    let node = Node::start(config).await.unwrap();
    node.import(&[(IMAGE, &busybox().unwrap())]).await.unwrap();
    Some(Machine { node, settings })
}

impl Machine {
    /// Numbers of the node's processes whose command line has all these words.
    pub(crate) fn processes(&self, words: &[&str]) -> Vec<String> {
        let script =
            "for p in /proc/[0-9]*; do echo \"${p#/proc/} $(tr '\\0' ' ' < $p/cmdline)\"; done";
        let output = self.node.namespaces().command("sh").args(["-c", script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fits =
            |line: &&str| words.iter().all(|word| line.contains(word)) && !line.contains(script);
        text.lines().filter(fits).filter_map(|line| Some(line.split(' ').next()?.into())).collect()
    }

    pub(crate) fn signal(&self, signal: &str, process: &str) {
        let mut kill = self.node.namespaces().command("kill");
        assert!(kill.args([&format!("-{signal}"), process]).status().unwrap().success());
    }

    /// Shims and QEMUs with their helpers.
    pub(crate) fn parts(&self) -> Vec<String> {
        [
            &["containerd-shim-anchorhold-v2", "-id"][..],
            &["qemu-system"],
            &["vhost-device-vsock"],
            &["__anchorhold-vm-"],
        ]
        .into_iter()
        .flat_map(|words| self.processes(words))
        .collect()
    }

    pub(crate) async fn until(&self, what: &str, reached: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !reached().await {
            assert!(begun.elapsed() < LIMIT, "{what} within {LIMIT:?}\n{}", self.node.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn until_nothing_is_left(&self) {
        self.until("nothing left", async || self.parts().is_empty()).await;
    }

    /// What a script prints in the node's namespaces.
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.node.namespaces().command("sh").args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Counts of all that pods could leave behind: mounts, network namespaces, shims' sockets, interfaces, snapshots, all processes, the
    /// open files of snapshotter and containerd, scratch disks, and files in their folder.
    pub(crate) fn held(&self) -> String {
        let snapshots = self.node.snapshotter_root().join("snapshots");
        let snapshotter = self.processes(&["anchorhold-snapshotter", "--root"]);
        let containerd = self.processes(&["containerd", "--config"]);
        self.shell(&format!(
            "wc -l < /proc/self/mountinfo; ls /run/netns | wc -l; ls /run/containerd/s | wc -l; \
             /bin/busybox ip -o link | wc -l; ls {} | wc -l; ls -d /proc/[0-9]* | wc -l; \
             ls /proc/{}/fd | wc -l; ls /proc/{}/fd | wc -l; echo {}; ls -A {} | wc -l",
            snapshots.display(),
            snapshotter[0],
            containerd[0],
            self.scratch_disks(),
            self.scratch_folder().display(),
        ))
    }

    /// What is held when a pod has come and gone: the first one makes what the node keeps, as its bridge.
    pub(crate) async fn held_after_a_pod(&self) -> String {
        let pod = self.pod("first").await;
        let container = pod.create(pod.container("main", IMAGE, &["true"])).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(container.wait(LIMIT).await.unwrap(), 0);
        pod.remove().await.unwrap();
        self.until_nothing_is_left().await;
        self.held()
    }

    pub(crate) fn scratch_folder(&self) -> PathBuf {
        self.settings.path().join("scratch")
    }

    /// How often a file of the scratch disks' folder is open. They have no names: the links of the processes that have them open say so.
    pub(crate) fn scratch_disks(&self) -> u64 {
        let folder = self.scratch_folder();
        let links = "ls -l /proc/[0-9]*/fd 2> /dev/null";
        let count = format!("{links} | grep -c -- '-> {}/.*(deleted)$'", folder.display());
        self.shell(&count).trim().parse().unwrap()
    }

    /// containerd collects what is no longer used on its own time; fewer than before is no leak.
    pub(crate) async fn until_held_is_at_most(&self, before: &str) {
        let begun = Instant::now();
        while !is_at_most(&self.held(), before) {
            assert!(begun.elapsed() < LIMIT, "found\n{}before\n{before}", self.held());
            tokio::time::sleep(Duration::from_secs(1)).await;
            // a deletion that comes while containerd collects is looked at with the next one
            for args in
                [&["images", "tag", "--force", IMAGE, PASSING][..], &["images", "rm", PASSING]]
            {
                assert!(self.node.ctr_command(args).output().unwrap().status.success());
            }
        }
    }

    /// The folder of the one VM that runs: its sockets are named on QEMU's command line.
    pub(crate) fn run_dir(&self) -> PathBuf {
        let machines = self.processes(&["qemu-system", "-sandbox"]);
        let line = self.shell(&format!("tr '\\0' '\\n' < /proc/{}/cmdline", machines[0]));
        let socket = line.split(['=', ',', '\n']).find(|part| part.starts_with("/run/anchorhold/"));
        PathBuf::from(socket.unwrap()).parent().unwrap().to_owned()
    }

    pub(crate) async fn pod(&self, name: &str) -> Pod {
        match self.node.run_pod(&PodConfig::new(name, "vm")).await {
            Ok(pod) => pod,
            Err(status) => panic!("{status}\n{}", self.node.logs()),
        }
    }
}

pub(crate) async fn is_ready(pod: &Pod) -> bool {
    let status = pod.status().await.unwrap();
    status.state.enum_value() == Ok(PodSandboxState::SANDBOX_READY)
}

/// Line by line.
fn is_at_most(found: &str, before: &str) -> bool {
    let counts = |text: &str| -> Vec<u64> {
        text.lines().map(|line| line.trim().parse().unwrap()).collect()
    };
    let (found, before) = (counts(found), counts(before));
    found.len() == before.len() && found.iter().zip(&before).all(|(found, before)| found <= before)
}
