//! Pods in VMs: the shim below a real containerd's CRI, its whole life and its faults.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ah_containerd_api::Code;
use ah_containerd_api::cri::{Mount, PodSandboxState};
use ah_testkit_images::{Entry, LayerSpec, Packing, busybox};
use ah_testkit_node::{Node, NodeConfig, Pod, PodConfig, SNAPSHOTTER};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const IMAGE: &str = "localhost/busybox:1";
/// A name that an image has for a moment.
const PASSING: &str = "localhost/passing:1";

/// The folder of this build: tests of other packages do not get its programs' paths from cargo.
fn build() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().to_owned()
}

/// A node whose handlers are `vm` (no policy needed) and `vm-cc` (confidential).
struct Machine {
    node: Node,
    settings: TempDir,
}

async fn machine() -> Option<Machine> {
    machine_with(&[]).await
}

/// A node whose shims are told more: keys and values.
async fn machine_with(more: &[(&str, &str)]) -> Option<Machine> {
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
        ..NodeConfig::new(build().join("anchorhold-snapshotter"))
    };
    let node = Node::start(config).await.unwrap();
    node.import(&[(IMAGE, &busybox().unwrap())]).await.unwrap();
    Some(Machine { node, settings })
}

impl Machine {
    /// Numbers of the node's processes whose command line has all these words.
    fn processes(&self, words: &[&str]) -> Vec<String> {
        let script =
            "for p in /proc/[0-9]*; do echo \"${p#/proc/} $(tr '\\0' ' ' < $p/cmdline)\"; done";
        let output = self.node.namespaces().command("sh").args(["-c", script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fits =
            |line: &&str| words.iter().all(|word| line.contains(word)) && !line.contains(script);
        text.lines().filter(fits).filter_map(|line| Some(line.split(' ').next()?.into())).collect()
    }

    fn signal(&self, signal: &str, process: &str) {
        let mut kill = self.node.namespaces().command("kill");
        assert!(kill.args([&format!("-{signal}"), process]).status().unwrap().success());
    }

    /// Shims and QEMUs with their helpers.
    fn parts(&self) -> Vec<String> {
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

    async fn until(&self, what: &str, reached: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !reached().await {
            assert!(begun.elapsed() < LIMIT, "{what} within {LIMIT:?}\n{}", self.node.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_nothing_is_left(&self) {
        self.until("nothing left", async || self.parts().is_empty()).await;
    }

    /// What a script prints in the node's namespaces.
    fn shell(&self, script: &str) -> String {
        let output = self.node.namespaces().command("sh").args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Counts of all that pods could leave behind: mounts, network namespaces, shims' sockets, interfaces, snapshots, all processes, the
    /// open files of snapshotter and containerd, scratch disks, and files in their folder.
    fn held(&self) -> String {
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
    async fn held_after_a_pod(&self) -> String {
        let pod = self.pod("first").await;
        let container = pod.create(pod.container("main", IMAGE, &["true"])).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(container.wait(LIMIT).await.unwrap(), 0);
        pod.remove().await.unwrap();
        self.until_nothing_is_left().await;
        self.held()
    }

    fn scratch_folder(&self) -> PathBuf {
        self.settings.path().join("scratch")
    }

    /// How often a file of the scratch disks' folder is open. They have no names: the links of the processes that have them open say so.
    fn scratch_disks(&self) -> u64 {
        let folder = self.scratch_folder();
        let links = "ls -l /proc/[0-9]*/fd 2> /dev/null";
        let count = format!("{links} | grep -c -- '-> {}/.*(deleted)$'", folder.display());
        self.shell(&count).trim().parse().unwrap()
    }

    /// containerd collects what is no longer used on its own time; fewer than before is no leak.
    async fn until_held_is_at_most(&self, before: &str) {
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

    /// A pod that prints a word and is removed; else what was told instead, in words.
    async fn one_of_many(&self, number: usize) -> Result<(), String> {
        let name = format!("crowd{number}");
        let pod = self.node.run_pod(&PodConfig::new(&name, "vm")).await;
        let pod = pod.map_err(|status| status.to_string())?;
        let main = pod.container("main", IMAGE, &["echo", &name]);
        let ran = async {
            let container = pod.create(main).await.map_err(|status| status.to_string())?;
            container.start().await.map_err(|status| status.to_string())?;
            container.wait(CROWD_LIMIT).await.map_err(|error| error.to_string())?;
            container.output().map_err(|error| error.to_string())
        }
        .await;
        pod.remove().await.map_err(|status| status.to_string())?;
        assert_eq!(ran?, format!("{name}\n"));
        Ok(())
    }

    /// The folder of the one VM that runs: its sockets are named on QEMU's command line.
    fn run_dir(&self) -> PathBuf {
        let machines = self.processes(&["qemu-system", "-sandbox"]);
        let line = self.shell(&format!("tr '\\0' '\\n' < /proc/{}/cmdline", machines[0]));
        let socket = line.split(['=', ',', '\n']).find(|part| part.starts_with("/run/anchorhold/"));
        PathBuf::from(socket.unwrap()).parent().unwrap().to_owned()
    }

    async fn pod(&self, name: &str) -> Pod {
        match self.node.run_pod(&PodConfig::new(name, "vm")).await {
            Ok(pod) => pod,
            Err(status) => panic!("{status}\n{}", self.node.logs()),
        }
    }
}

async fn is_ready(pod: &Pod) -> bool {
    let status = pod.status().await.unwrap();
    status.state.enum_value() == Ok(PodSandboxState::SANDBOX_READY)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_a_vm_runs_is_entered_and_leaves_nothing() {
    let Some(machine) = machine().await else { return };
    let pod = machine.pod("life").await;
    let script = "echo out; echo err >&2; cat /etc/hostname; ip -o addr show eth0; \
                  echo the reason > /dev/termination-log; exit 7";
    let message = machine.settings.path().join("pods/1/containers/short/0a1b2c3d");
    std::fs::create_dir_all(message.parent().unwrap()).unwrap();
    std::fs::write(&message, "").unwrap();
    let mut short = pod.container("short", IMAGE, &["sh", "-c", script]);
    short.mounts.push(Mount {
        container_path: "/dev/termination-log".into(),
        host_path: message.display().to_string(),
        ..Mount::default()
    });
    let short = pod.create(short).await.unwrap();
    short.start().await.unwrap();
    assert_eq!(short.wait(LIMIT).await.unwrap(), 7);
    let printed = short.output().unwrap();
    for expect in ["out\n", "err\n", "life\n", "inet 10.88.", "inet6 fd00:88:"] {
        assert!(printed.contains(expect), "{printed}");
    }
    assert_eq!(std::fs::read_to_string(&message).unwrap(), "the reason\n");

    let long = pod.create(pod.container("long", IMAGE, &["sleep", "1000"])).await.unwrap();
    long.start().await.unwrap();
    let entered = long.exec(&["sh", "-c", "echo inside; exit 3"]).await.unwrap();
    assert_eq!((entered.exit_code, entered.stdout.as_slice()), (3, &b"inside\n"[..]));
    for gateway in ["10.88.0.1", "fd00:88::1"] {
        let answer = long.exec(&["ping", "-c", "5", "-W", "2", gateway]).await.unwrap();
        assert_eq!(answer.exit_code, 0, "{}", String::from_utf8_lossy(&answer.stdout));
    }

    assert_eq!(machine.processes(&["containerd-shim-anchorhold-v2", "-id"]).len(), 1);
    // What containerd logs of the shim says which pod a call was for, and how long it took.
    let trace = format!("trace={}", PodConfig::new("life", "").uid.replace('-', ""));
    let logs = machine.node.logs();
    let told = |method: &str| {
        let method = format!("method=\"{method}\"");
        logs.lines()
            .any(|line| [&trace, &method, "done ms="].iter().all(|part| line.contains(*part)))
    };
    assert!(told("Create") && told("Exec") && !told("State"), "{logs}");
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

/// The kubelet renews a token or changes a ConfigMap by a folder of another version and a link that it turns over.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_follows_what_the_kubelet_puts_in_it() {
    let Some(machine) = machine().await else { return };
    let volume = machine.settings.path().join("pods/1/volumes/kubernetes.io~projected/late");
    let turn_to = |version: &str, text: &str| {
        std::fs::create_dir_all(volume.join(version)).unwrap();
        std::fs::write(volume.join(version).join("word"), text).unwrap();
        std::os::unix::fs::symlink(version, volume.join("..next")).unwrap();
        std::fs::rename(volume.join("..next"), volume.join("..data")).unwrap();
    };
    turn_to("..2026_01_01_00_00_00.1", "first\n");
    std::os::unix::fs::symlink("..data/word", volume.join("word")).unwrap();
    let pod = machine.pod("late").await;
    let script = "cat /late/word; until grep second /late/word; do sleep 1; done; ls -A /late";
    let mut reader = pod.container("reader", IMAGE, &["sh", "-c", script]);
    reader.mounts.push(Mount {
        container_path: "/late".into(),
        host_path: volume.display().to_string(),
        readonly: true,
        ..Mount::default()
    });
    let reader = pod.create(reader).await.unwrap();
    reader.start().await.unwrap();
    machine.until("the first word", async || reader.output().unwrap().contains("first")).await;
    turn_to("..2026_01_02_00_00_00.2", "second\n");
    std::fs::remove_dir_all(volume.join("..2026_01_01_00_00_00.1")).unwrap();
    assert_eq!(reader.wait(LIMIT).await.unwrap(), 0);
    let printed = reader.output().unwrap();
    assert!(printed.contains("second\n..2026_01_02_00_00_00.2\n..data\nword\n"), "{printed}");
    let trace = format!("trace={}", PodConfig::new("late", "").uid.replace('-', ""));
    let logs = machine.node.logs();
    let renewed = logs.lines().find(|line| line.contains("volume renewed"));
    assert!(renewed.is_some_and(|line| line.contains(&trace)), "{logs}");
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

/// `ctr` has read an empty input before there is a task to close the input of; with one that has something it has not.
#[tokio::test(flavor = "multi_thread")]
async fn a_containers_input_ends_whether_or_not_there_was_something_in_it() {
    let Some(machine) = machine().await else { return };
    let config = machine.settings.path().join("vm.toml").display().to_string();
    let run = |name| {
        let mut args = vec!["run", "--rm", "--snapshotter", SNAPSHOTTER];
        args.extend(["--runtime", "io.containerd.anchorhold.v2"]);
        args.extend(["--runtime-config-path", &config, IMAGE, name]);
        args.extend(["sh", "-c", "cat; echo end"]);
        machine.node.ctr_command(&args)
    };
    let empty = run("empty").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&empty.stdout), "end\n", "{empty:?}");
    let mut fed = run("fed").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    fed.stdin.take().unwrap().write_all(b"given\n").unwrap();
    let fed = fed.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&fed.stdout), "given\nend\n", "{fed:?}");
    machine.until_nothing_is_left().await;
}

/// More layers than the first bridge has room for, each its own disk.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_layers_are_plugged_in() {
    let Some(machine) = machine().await else { return };
    let mut image = busybox().unwrap();
    for number in image.layers.len()..64 {
        let file = Entry::file(format!("layers/{number}"), format!("{number}\n"));
        let layer = LayerSpec::of(Packing::Plain, [Entry::dir("layers"), file]);
        image = image.with_layer(layer);
    }
    machine.node.import(&[("localhost/layers:1", &image)]).await.unwrap();
    let pod = machine.pod("layers").await;
    let count = pod.container("main", "localhost/layers:1", &["sh", "-c", "cat /layers/* | wc -l"]);
    let container = pod.create(count).await.unwrap();
    container.start().await.unwrap();
    assert_eq!(container.wait(LIMIT).await.unwrap(), 0);
    assert_eq!(container.output().unwrap().trim(), "63");
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_confidential_pod_without_a_policy_is_refused_with_the_reason() {
    let Some(machine) = machine().await else { return };
    let error = machine.node.run_pod(&PodConfig::new("open", "vm-cc")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let told = error.to_string();
    assert!(told.contains("the pod has no policy") && told.contains("cc_init_data"), "{told}");
    machine.until_nothing_is_left().await;
}

/// The value of a metric, as the node's endpoint tells it; 0 where it is not told.
fn metric(machine: &Machine, line: &str) -> f64 {
    let mut socket = UnixStream::connect(machine.node.metrics()).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let text = std::io::read_to_string(socket).unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_counts_starts_conversions_and_refusals() {
    let Some(machine) = machine().await else { return };
    let stage = "anchorhold_sandbox_stage_seconds_count{stage=\"agent ready\"}";
    let converted = "anchorhold_layer_conversions_total{result=\"converted\"}";
    let refused = "anchorhold_sandbox_failures_total{blame=\"configuration\"}";
    assert_eq!([stage, refused].map(|line| metric(&machine, line)), [0.0, 0.0]);
    let pod = machine.pod("counted").await;
    let container = pod.create(pod.container("main", IMAGE, &["echo", "ran"])).await.unwrap();
    container.start().await.unwrap();
    machine.node.run_pod(&PodConfig::new("open", "vm-cc")).await.unwrap_err();
    machine.until("one start", async || metric(&machine, stage) == 1.0).await;
    machine.until("one refusal", async || metric(&machine, refused) == 1.0).await;
    assert!(metric(&machine, converted) >= 1.0);
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

/// The kernel finds no init and stops there: `panic=0` keeps it from ending.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_boot_in_time_is_told_with_its_console() {
    let Some(machine) = machine_with(&[("boot_limit_seconds", "20")]).await else { return };
    let broken = machine.settings.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let guest = build().parent().unwrap().join("guest-image");
    std::os::unix::fs::symlink(guest.join("vmlinuz"), broken.join("vmlinuz")).unwrap();
    std::fs::write(broken.join("initrd"), [1; 4096]).unwrap();
    std::fs::write(broken.join("cmdline.software"), "console=ttyS0 quiet panic=0").unwrap();
    let file = machine.settings.path().join("vm.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("{guest:?}"), &format!("{broken:?}"));
    std::fs::write(&file, text).unwrap();
    let error = machine.node.run_pod(&PodConfig::new("stuck", "vm")).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("no agent after 20s") && told.contains("Kernel panic"), "{told}");
    machine.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_containerd() {
    let Some(mut machine) = machine().await else { return };
    let pod = machine.pod("outlives").await;
    let count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 1; done";
    let container = pod.create(pod.container("main", IMAGE, &["sh", "-c", count])).await.unwrap();
    container.start().await.unwrap();
    machine
        .until("the first line", async || {
            container.output().is_ok_and(|text| text.contains("line 1"))
        })
        .await;
    machine.node.end_containerd("KILL").unwrap();
    machine.node.start_containerd().await.unwrap();
    assert!(is_ready(&pod).await);
    let entered = container.exec(&["echo", "again"]).await.unwrap();
    assert_eq!(entered.stdout, b"again\n");
    let before = container.output().unwrap().lines().count();
    machine
        .until("more lines", async || container.output().unwrap().lines().count() > before)
        .await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_vm_along_and_the_pod_can_be_removed() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("killed").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let shims = machine.processes(&["containerd-shim-anchorhold-v2", "-id"]);
    machine.signal("KILL", &shims[0]);
    machine.until_nothing_is_left().await;
    machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    // what containerd says of a container whose end nobody saw
    assert_ne!(container.wait(LIMIT).await.unwrap(), 0);
    pod.remove().await.unwrap();
    machine.until_held_is_at_most(&before).await;
}

/// Before there is an agent, and before containerd has an answer to its call.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_or_vm_killed_while_it_boots_is_told_and_leaves_nothing() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    for words in [&["containerd-shim-anchorhold-v2", "-id"][..], &["qemu-system", "-sandbox"]] {
        let pod = PodConfig::new("early", "vm");
        let kill = async {
            let booting = &["qemu-system", "-sandbox"];
            machine.until("a VM", async || !machine.processes(booting).is_empty()).await;
            machine.signal("KILL", &machine.processes(words)[0]);
        };
        let begun = Instant::now();
        let (told, ()) = tokio::join!(machine.node.run_pod(&pod), kill);
        assert!(told.is_err() && begun.elapsed() < LIMIT, "{told:?}");
        machine.until_nothing_is_left().await;
        assert_eq!(machine.scratch_disks(), 0);
    }
    // the node is as good as before
    let pod = machine.pod("after").await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vm_ends_its_containers() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("crash").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let machines = machine.processes(&["qemu-system", "-sandbox"]);
    machine.signal("KILL", &machines[0]);
    assert_eq!(container.wait(LIMIT).await.unwrap(), 137);
    machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_holds_nothing_up() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("silent").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let machines = machine.processes(&["qemu-system", "-sandbox"]);
    machine.signal("STOP", &machines[0]);
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vsock_device_ends_its_containers() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("deaf").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    if std::path::Path::new("/dev/vhost-vsock").exists() {
        eprintln!("skipped: this kernel has vhost-vsock, so there is no such process");
    } else {
        let devices = machine.processes(&["vhost-device-vsock", "--uds-path="]);
        machine.signal("KILL", devices.first().expect("the VM's vsock device"));
        assert_eq!(container.wait(LIMIT).await.unwrap(), 137);
        machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    }
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_the_snapshotter_and_gets_more_containers_from_the_next() {
    let Some(mut machine) = machine().await else { return };
    let pod = machine.pod("outlives").await;
    let first = pod.create(pod.container("first", IMAGE, &["sleep", "1000"])).await.unwrap();
    first.start().await.unwrap();
    machine.node.end_snapshotter("KILL").unwrap();
    let entered = first.exec(&["echo", "here"]).await.unwrap();
    assert_eq!(entered.stdout, b"here\n");
    let refused = pod.create(pod.container("second", IMAGE, &["echo", "late"])).await;
    assert!(refused.is_err(), "a container without a root");
    machine.node.start_snapshotter().await.unwrap();
    // containerd takes its time to connect again, and the kubelet asks again
    let begun = Instant::now();
    let second = loop {
        match pod.create(pod.container("second", IMAGE, &["echo", "late"])).await {
            Ok(second) => break second,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}\n{}", machine.node.logs()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    second.start().await.unwrap();
    assert_eq!(second.wait(LIMIT).await.unwrap(), 0);
    assert_eq!(second.output().unwrap(), "late\n");
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

/// How often pods come and go: `cargo xtask soak pods` says more.
fn cycles() -> u32 {
    match std::env::var("ANCHORHOLD_SOAK_CYCLES") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 10,
    }
}

/// The first pod makes what the node keeps, as its bridge.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_and_go_leave_nothing_behind() {
    let Some(machine) = machine().await else { return };
    let mut before = None;
    for number in 0..=cycles() {
        let pod = machine.pod(&format!("cycle{number}")).await;
        let container = pod.create(pod.container("main", IMAGE, &["echo", "ran"])).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(container.wait(LIMIT).await.unwrap(), 0);
        let run_dir = machine.run_dir();
        // what is counted in the end is there to be counted
        assert!(run_dir.is_dir() && machine.scratch_disks() > 0);
        pod.remove().await.unwrap();
        machine.until_nothing_is_left().await;
        assert!(!run_dir.exists(), "{}", run_dir.display());
        before.get_or_insert_with(|| machine.held());
    }
    let before = before.unwrap();
    println!("{} pods; held before:\n{before}and after:\n{}", cycles(), machine.held());
    machine.until_held_is_at_most(&before).await;
}

/// Line by line.
fn is_at_most(found: &str, before: &str) -> bool {
    let counts = |text: &str| -> Vec<u64> {
        text.lines().map(|line| line.trim().parse().unwrap()).collect()
    };
    let (found, before) = (counts(found), counts(before));
    found.len() == before.len() && found.iter().zip(&before).all(|(found, before)| found <= before)
}

/// Pods started at once.
const CROWD: usize = 20;
/// Beyond the shim's own limit for a boot, which says clearly what it waited for.
const CROWD_LIMIT: Duration = Duration::from_secs(900);

/// On a small machine some may not boot within the shim's limit: then they have to say so, and leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_pods_at_once_come_up_or_fail_clearly_and_leave_nothing() {
    let Some(machine) = machine_with(&[("boot_limit_seconds", "400")]).await else { return };
    let machine = std::sync::Arc::new(machine);
    let before = machine.held_after_a_pod().await;
    let one = |number: usize| {
        let machine = std::sync::Arc::clone(&machine);
        tokio::spawn(async move { machine.one_of_many(number).await })
    };
    let pods: Vec<_> = (0..CROWD).map(one).collect();
    let mut told = Vec::new();
    for pod in pods {
        let ended = tokio::time::timeout(CROWD_LIMIT, pod).await;
        match ended.expect("a pod that neither comes up nor fails").unwrap() {
            Ok(()) => {}
            Err(failure) => told.push(failure),
        }
    }
    println!("{} of {CROWD} came up; the others said: {told:#?}", CROWD - told.len());
    for failure in &told {
        let is_clear = failure.contains("no agent after 400s");
        assert!(is_clear, "{failure}\n{}", machine.node.logs());
    }
    assert!(told.len() < CROWD, "none came up");
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}
