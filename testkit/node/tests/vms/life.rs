//! What pods in VMs do while nothing goes wrong, and what is told of them.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use ah_containerd_api::Code;
use ah_containerd_api::cri::Mount;
use ah_testkit_images::{Entry, LayerSpec, Packing, busybox};
use ah_testkit_node::{Container, PodConfig, SNAPSHOTTER};

use crate::machine::{IMAGE, LIMIT, Machine, machine};

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

    attack_ports_are_forwarded_to_the_pods_address_only(&machine, &long).await;

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

/// `kubectl port-forward` is a connection to localhost in the pod's network namespace. It reaches what the pod's network reaches, and not
/// what listens for the guest alone.
async fn attack_ports_are_forwarded_to_the_pods_address_only(machine: &Machine, web: &Container) {
    let serve = "mkdir /www && echo served > /www/index.html && /bin/busybox httpd -p 8080 -h /www && \
                 /bin/busybox httpd -p 127.0.0.1:8081 -h /www && /bin/busybox wget -q -O - http://127.0.0.1:8081/index.html";
    let served = web.exec(&["sh", "-c", serve]).await.unwrap();
    assert_eq!(served.stdout, b"served\n", "{}", String::from_utf8_lossy(&served.stderr));
    let fetch = |port: u16| {
        machine.shell(&format!(
            "for ns in /run/netns/*; do \
             nsenter --net=$ns timeout 30 /bin/busybox wget -q -O - http://127.0.0.1:{port}/index.html; done"
        ))
    };
    machine.until("port 8080 answers", async || fetch(8080) == "served\n").await;
    assert_eq!(fetch(8081), "", "the guest's own localhost is open to the node");
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

/// As many layers as an image may have (Docker makes no more than 127), each its own disk.
#[tokio::test(flavor = "multi_thread")]
async fn layers_by_the_hundred_are_plugged_in() {
    let Some(machine) = machine().await else { return };
    let mut image = busybox().unwrap();
    for number in image.layers.len()..127 {
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
    assert_eq!(container.output().unwrap().trim(), "126");
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
