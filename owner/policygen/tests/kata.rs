//! Policies for a stock Kata agent, decided as it decides: the honest requests of a node, and what the known generator's
//! policies let a host do beside them.

#[path = "support/stock.rs"]
mod stock;
mod support;

use ah_agent_api::Request;
use ah_pod::{EnvVar, Pod, Role};
use ah_policygen::{Agent, Options, generate, honest_requests_for, show, stand_in_host};
use serde_json::{Value, json};
use stock::{Stock, node_input};
use support::{container, pod};

fn policy(pod: &Pod) -> String {
    generate(pod, &Options { agent: Agent::Kata, ..Options::default() }).unwrap().policy
}

fn requests(pod: &Pod) -> Vec<Request> {
    honest_requests_for(Agent::Kata, pod, &stand_in_host(pod)).unwrap()
}

/// The agent before the container `name` is created, and the honest request for that.
fn before(pod: &Pod, name: &str) -> (Stock, Value) {
    let mut stock = Stock::new(&policy(pod));
    for request in requests(pod) {
        let input = node_input(&request);
        let found = &input["OCI"]["Annotations"]["io.kubernetes.cri.container-name"];
        if matches!(request, Request::CreateContainer(_)) && found == name {
            return (stock, input);
        }
        assert!(stock.allows(request.rule_name(), &input), "{}", request.method());
    }
    panic!("no container {name}");
}

#[test]
fn a_node_s_honest_requests_are_allowed_from_the_first_to_the_last() {
    let mut longer = pod();
    longer.containers.push(container("helper", Role::Sidecar));
    longer.share_process_namespace = true;
    longer.security.fs_group =
        Some(ah_pod::FsGroup { gid: 3000, change: ah_pod::FsGroupChange::Always });
    with_config(&mut longer);
    // Longer than a line that the engine reads without raised limits.
    let value = "long ".repeat(900);
    longer.containers[1].env.push(EnvVar { name: "LONG".to_owned(), value: value.into() });
    for pod in [pod(), longer] {
        let policy = policy(&pod);
        assert!(policy.lines().all(|line| line.len() < 1024));
        assert!(!policy.contains("data.guest") && !policy.contains("data_sha256"));
        let mut stock = Stock::new(&policy);
        for request in requests(&pod) {
            let rule = request.rule_name();
            assert!(stock.allows(rule, &node_input(&request)), "{}", request.method());
        }
    }
}

/// `web` has a ConfigMap at `/etc/config`.
fn with_config(pod: &mut Pod) {
    let content = ah_pod::FileContent::Fixed(ah_pod::FileBytes(b"value".to_vec()));
    let files = vec![ah_pod::VolumeFile { path: "key".to_owned(), mode: 0o644, content }];
    let source = ah_pod::VolumeSource::Files(ah_pod::FileVolume { files, unpinned: None });
    pod.volumes.push(ah_pod::Volume { name: "config".to_owned(), source });
    pod.containers[1].mounts.push(ah_pod::VolumeMount {
        volume: "config".to_owned(),
        path: "/etc/config".to_owned(),
        read_only: true,
        sub_path: None,
    });
}

/// What is in the files a stock agent does not tell; which files there are, their modes and where links lead it does.
#[test]
fn attack_another_tree_in_the_place_of_a_config_map() {
    let mut pod = pod();
    with_config(&mut pod);
    let mut stock = Stock::new(&policy(&pod));
    for request in requests(&pod) {
        let (rule, input) = (request.rule_name(), node_input(&request));
        let path = input["path"].as_str().unwrap_or_default().to_owned();
        if matches!(request, Request::CreateContainer(_)) && stock.would_allow(rule, &input) {
            // A part that was not copied in.
            let mounts = input["OCI"]["Mounts"].as_array().unwrap();
            let config = mounts.iter().position(|mount| mount["destination"] == "/etc/config");
            if let Some(config) = config {
                let source = mounts[config]["source"].as_str().unwrap();
                let other = source.replace("-config", "-confi");
                let pointer = format!("/OCI/Mounts/{config}/source");
                assert!(!stock.would_allow(rule, &changed(&input, &pointer, json!(other))));
            }
        }
        let changes: &[(&str, Value)] = match input["file_type"].as_str() {
            Some("Symlink") if path.ends_with("/key") => {
                &[("/symlink_target", json!("/etc/shadow"))]
            }
            Some("Symlink") => &[("/symlink_target", json!("../../../etc"))],
            Some("Regular") if path.ends_with("/key") => &[
                ("/file_mode", json!(0o100_755)),
                ("/file_size", json!(2 << 20)),
                ("/offset", json!(1 << 20)),
                ("/uid", json!(1)),
            ],
            _ => &[],
        };
        for (pointer, value) in changes {
            assert!(
                !stock.would_allow(rule, &changed(&input, pointer, value.clone())),
                "{path} {pointer}"
            );
        }
        if path.ends_with("/key") {
            let other = format!("{path}2");
            assert!(!stock.would_allow(rule, &changed(&input, "/path", json!(other))), "{path}");
        }
        assert!(stock.allows(rule, &input), "{} {path}", request.method());
    }
}

/// A change that the host could want, at a JSON pointer; `null` takes the member away.
fn changed(input: &Value, pointer: &str, value: Value) -> Value {
    let mut input = input.clone();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    match input.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(last, value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) if value.is_null() => drop(list.remove(last.parse().unwrap())),
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
    input
}

/// What differs between nodes makes no difference.
#[test]
fn nodes_may_differ_in_what_makes_no_difference() {
    let (mut stock, honest) = before(&pod(), "web");
    for (pointer, value) in [
        ("/OCI/Version", json!("1.3.0")),
        ("/OCI/Process/ApparmorProfile", json!("")),
        ("/OCI/Hostname", json!("shop.front")),
        ("/OCI/Linux/Resources/CPU", Value::Null),
        (
            "/OCI/Linux/CgroupsPath",
            json!(format!("/kubepods/{}", honest["container_id"].as_str().unwrap())),
        ),
        ("/OCI/Mounts/5/options", json!(["nosuid", "noexec", "nodev", "relatime", "ro"])),
        ("/storages/0/driver_options", json!(["image_guest_pull={\"metadata\":{}}"])),
        ("/OCI/Annotations/io.kubernetes.cri.sandbox-memory", json!("1")),
    ] {
        let input = changed(&honest, pointer, value);
        assert!(stock.would_allow("CreateContainerRequest", &input), "{pointer}");
    }
}

/// Section 3.1 of the reference: each of these is accepted by the known generator's policies.
#[test]
fn attack_every_request_that_the_known_policies_accept() {
    let (mut stock, honest) = before(&pod(), "web");
    assert!(stock.would_allow("CreateContainerRequest", &honest));
    let source = honest["storages"][0]["source"].as_str().unwrap().to_owned();
    let other = source.replace(|c: char| c.is_ascii_digit(), "0");
    let tag = source.split_once('@').unwrap().0.to_owned();
    let evil = "/x/run/kata-containers/gid/rootfs/../../../../tmp/evil";
    let root = honest["storages"][0].clone();
    let mut second = root.clone();
    second["driver_options"] = json!(["image_guest_pull={\"metadata\":{},\"x\":1}"]);
    let paused =
        "image_guest_pull={\"metadata\":{\"io.kubernetes.cri.container-type\":\"sandbox\"}}";
    for (pointer, value) in [
        ("/storages/0/source", json!(other)),
        ("/storages/0/source", json!(tag)),
        ("/storages/0/source", json!(format!("{tag}:latest"))),
        ("/storages/0/source", json!("pause")),
        ("/storages/0/mount_point", json!("/run/kata-containers/x/rootfs")),
        ("/storages/0/options/-", json!("rw")),
        ("/storages/0/driver_options", json!([paused])),
        ("/storages/0/driver_options/-", json!("image_guest_pull={\"metadata\":{}}")),
        ("/storages/0/driver_options", json!(["image_guest_pull={\"metadata\":{},\"x\":1}"])),
        ("/storages/0/driver", json!("overlayfs")),
        ("/storages/0", Value::Null),
        ("/storages", json!([])),
        ("/storages/-", root),
        ("/storages/-", second),
        ("/OCI/Annotations/io.kubernetes.cri.image-name", json!(other)),
        ("/OCI/Annotations/io.kubernetes.cri.untrusted", json!("x")),
        ("/OCI/Annotations/io.kubernetes.cri.sandbox-name", json!("shopxfront")),
        ("/OCI/Annotations/io.katacontainers.pkg.oci.bundle_path", json!("/anywhere")),
        ("/OCI/Process/Env", json!([])),
        ("/OCI/Process/Env/0", Value::Null),
        ("/OCI/Process/Env/-", json!("LD_SERVICE_HOST=10.6.6.6")),
        ("/OCI/Process/Env/-", json!("AZURE_CLIENT_ID=x")),
        ("/OCI/Process/Env/-", json!("JOB_COMPLETION_INDEX=1")),
        ("/OCI/Process/Env/-", json!("TERM=xterm")),
        ("/OCI/Process/Args/-", json!("x")),
        ("/OCI/Process/User/UID", json!(0)),
        ("/OCI/Process/User/AdditionalGids/-", json!(0)),
        ("/OCI/Process/Rlimits/-", json!({ "Type": "RLIMIT_CORE", "Hard": 1, "Soft": 1 })),
        ("/OCI/Process/OOMScoreAdj", json!(-1000)),
        ("/OCI/Process/ApparmorProfile", json!("unconfined")),
        ("/OCI/Hostname", json!("other")),
        ("/OCI/Mounts", json!([])),
        ("/OCI/Mounts/6", Value::Null),
        ("/OCI/Mounts/4/options/-", json!("rw")),
        ("/OCI/Root/Path", json!(evil)),
        ("/OCI/Linux/CgroupsPath", json!("/kubepods/other")),
        ("/OCI/Linux/Namespaces/-", json!({ "Type": "cgroup", "Path": "/proc/1/ns/cgroup" })),
        ("/OCI/Linux/Namespaces/-", json!({ "Type": "network", "Path": "" })),
        ("/OCI/Linux/Namespaces/0", Value::Null),
        ("/OCI/Linux/MaskedPaths/0", Value::Null),
        ("/OCI/Linux/MaskedPaths/-", json!("/etc/passwd")),
        ("/OCI/Linux/MaskedPaths/-", json!("/proc/../etc/passwd")),
        ("/OCI/Linux/ReadonlyPaths/-", json!("/var/log")),
        ("/OCI/Linux/ReadonlyPaths", json!([])),
        ("/OCI/Linux/Devices/-", json!({ "Path": "/dev/mem", "Type": "c" })),
        ("/OCI/Linux/Resources/Devices/-", json!({ "Allow": true, "Access": "rwm" })),
        ("/OCI/Linux/Resources/Pids", json!({ "Limit": 1 })),
        ("/OCI/Linux/Sysctl/kernel.core_pattern", json!("|/x")),
        ("/OCI/Linux/Sysctl/net.ipv4.ip_unprivileged_port_start", json!("1")),
        ("/OCI/Linux/Seccomp", json!({ "DefaultAction": "SCMP_ACT_ALLOW" })),
        ("/OCI/Version", json!("9.9.9")),
        ("/OCI/Hooks", json!({ "Prestart": [{ "Path": "/bin/sh" }] })),
        ("/stdin_port", json!(1)),
        ("/stdout_port", json!(1)),
        ("/sandbox_pidns", json!(true)),
        ("/devices/-", json!({ "id": "x" })),
        ("/shared_mounts/-", json!({ "name": "x" })),
        ("/container_id", json!("gid")),
    ] {
        let input = changed(&honest, pointer, value.clone());
        assert!(!stock.would_allow("CreateContainerRequest", &input), "{pointer}: {value}");
    }
    // A stock agent carries a retry out a second time, so it is none; the same container under another id is another one.
    assert!(stock.allows("CreateContainerRequest", &honest));
    assert!(!stock.allows("CreateContainerRequest", &honest));
    let text =
        honest.to_string().replace(honest["container_id"].as_str().unwrap(), &"e".repeat(64));
    assert!(!stock.allows("CreateContainerRequest", &serde_json::from_str(&text).unwrap()));
}

/// An executable is copied in, then its folder is the root of a container without storages.
#[test]
fn attack_the_copy_file_chain() {
    let (mut stock, honest) = before(&pod(), "web");
    let id = "e".repeat(64);
    let shared = format!("/run/kata-containers/shared/containers/{id}-0123456789abcdef-");
    let copy = |path: String, kind: &str, mode: u32| {
        json!({ "path": path, "file_type": kind, "symlink_target": null, "file_size": 4, "file_mode": mode,
            "dir_mode": 0o755, "uid": 0, "gid": 0, "offset": 0 })
    };
    let mut allows = |input: Value| stock.would_allow("CopyFileRequest", &input);
    assert!(allows(copy(format!("{shared}hosts"), "Regular", 0o100_644)));
    for name in ["x/run/kata-containers/abc/rootfs/entrypoint.sh", "x", "hosts/x", "hosts/../x"] {
        assert!(!allows(copy(format!("{shared}{name}"), "Regular", 0o100_755)), "{name}");
        assert!(!allows(copy(format!("{shared}{name}"), "Regular", 0o100_644)), "{name}");
    }
    assert!(!allows(copy(format!("{shared}hosts"), "Regular", 0o100_755)));
    assert!(!allows(copy(format!("{shared}hosts"), "Directory", 0o040_755)));
    assert!(!allows(copy("/etc/ssl/cert.pem".to_owned(), "Regular", 0o100_644)));
    let mut root = changed(&honest, "/OCI/Root/Path", json!(format!("{shared}x")));
    root["storages"] = json!([]);
    assert!(!stock.allows("CreateContainerRequest", &root));
}

#[test]
fn attack_exec_of_another_command() {
    let pod = pod();
    let mut stock = Stock::new(&policy(&pod));
    for request in requests(&pod) {
        let input = node_input(&request);
        if matches!(request, Request::ExecProcess(_)) {
            assert!(stock.would_allow("ExecProcessRequest", &input));
            for (pointer, value) in [
                ("/process/Args", json!(["sh"])),
                ("/process/Env/-", json!("LD_PRELOAD=/x")),
                ("/process/User/UID", json!(0)),
                (
                    "/process/Capabilities",
                    json!({ "Ambient": [], "Bounding": [], "Effective": ["CAP_SYS_ADMIN"],
                    "Inheritable": [], "Permitted": [] }),
                ),
                ("/process/ApparmorProfile", json!("unconfined")),
                ("/process/OOMScoreAdj", json!(-1000)),
                ("/process/Terminal", json!(true)),
                ("/stdout_port", json!(1)),
            ] {
                let input = changed(&input, pointer, value);
                assert!(!stock.would_allow("ExecProcessRequest", &input), "{pointer}");
            }
            return;
        }
        assert!(stock.allows(request.rule_name(), &input), "{}", request.method());
    }
    panic!("no exec");
}

#[test]
fn show_says_what_a_stock_agent_cannot_check() {
    let shown = show(&policy(&pod())).unwrap();
    assert_eq!(shown.agent, Agent::Kata);
    let text = shown.to_string();
    for words in [
        "agent        stock Kata",
        "when an init container has ended",
        "images are pulled there, by digest",
        "contents of the files",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_a_stock_agent_cannot_have_is_refused_with_what_to_write() {
    let refused = |change: fn(&mut Pod), words: &str| {
        let mut pod = pod();
        change(&mut pod);
        let error = generate(&pod, &Options { agent: Agent::Kata, ..Options::default() });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(|pod| pod.containers[1].release_socket = true, "--for anchorhold");
    refused(|pod| pod.containers[1].image.volumes = vec!["/var/x".to_owned()], "emptyDir with");
    refused(|pod| pod.containers[1].mounts[0].sub_path = Some("a".to_owned()), "whole volume");
    refused(
        |pod| {
            pod.volumes[0].source = ah_pod::VolumeSource::EmptyDir {
                medium: ah_pod::Medium::Disk,
                size_limit_bytes: None,
            };
        },
        "medium: Memory",
    );
}
