//! CreateContainer: the honest request, and each smallest change of it that a host could want.

mod support;

use ah_agent_api::Request;
use ah_agent_api::agent::{
    CreateContainerRequest, RemoveContainerRequest, SharedMount, StartContainerRequest, StringUser,
};
use ah_agent_api::oci::{
    Box as ConsoleSize, Hook, Hooks, LinuxBlockIO, LinuxDevice, LinuxDeviceCgroup, LinuxIDMapping,
    LinuxNamespace, LinuxSeccomp, Mount, POSIXRlimit, Process, Spec,
};
use ah_agent_api::protobuf::MessageField;
use ah_pod::{EnvVar, HostFact, Role, Text, requests};
use support::{Case, container, pod, tampered};

fn spec(request: &mut CreateContainerRequest) -> &mut Spec {
    request.OCI.as_mut().unwrap()
}

fn process(request: &mut CreateContainerRequest) -> &mut Process {
    spec(request).Process.as_mut().unwrap()
}

fn linux(request: &mut CreateContainerRequest) -> &mut ah_agent_api::oci::Linux {
    spec(request).Linux.as_mut().unwrap()
}

#[test]
fn attack_env_variable_added() {
    for entry in [
        "LD_PRELOAD=/x",
        "LD_SERVICE_HOST=10.6.6.6",
        "AZURE_CLIENT_ID=x",
        "JOB_COMPLETION_INDEX=1",
        "TERM=xterm",
    ] {
        tampered("/OCI/Process/Env/6", |request| process(request).Env.push(entry.into()));
    }
}

#[test]
fn attack_env_variable_changed() {
    tampered("/OCI/Process/Env/0", |request| process(request).Env[0] = "PATH=/evil".into());
    tampered("/OCI/Process/Env/3", |request| {
        process(request).Env[3] = "MODE=quiet 10.0.2.15".into();
    });
}

#[test]
fn attack_env_variable_twice() {
    // The kubelet writes them in any order; a second one of a name could be the one that counts.
    let case = Case::before("web");
    let with = |change: fn(&mut Vec<String>)| {
        let mut request = case.create("web");
        change(&mut process(&mut request).Env);
        request
    };
    case.allowed(with(|env| env.swap(0, 4)));
    case.allowed(with(|env| env.reverse()));
    for change in [
        |env: &mut Vec<String>| env.push("MODE=other".into()),
        |env: &mut Vec<String>| env.insert(0, "MODE=other".into()),
        |env: &mut Vec<String>| env.push(env[3].clone()),
        |env: &mut Vec<String>| env[0] = env[3].clone(),
        |env: &mut Vec<String>| env.push("POD_IP=10.0.2.15".into()),
        |env: &mut Vec<String>| env.push("POD_IP=10.6.6.6".into()),
        |env: &mut Vec<String>| env.push("MODE".into()),
        // The rules join the list at NUL characters to look a name up.
        |env: &mut Vec<String>| env[0] = format!("{}\u{0}POD_IP=10.6.6.6", env[0]),
        |env: &mut Vec<String>| {
            env.retain(|entry| !entry.starts_with("POD_IP="));
            env[0] = format!("{}\u{0}POD_IP=10.0.2.15", env[0]);
        },
    ] {
        assert!(case.decide(with(change)).is_err());
    }
}

#[test]
fn attack_address_of_a_service_out_of_its_bounds() {
    let mut pod = pod();
    pod.services = vec!["default/kubernetes".into(), "db".into()];
    let url =
        |index| ah_pod::expand("tcp://$(A):443", |_| Some(Text::host(HostFact::ServiceIp(index))));
    let fact = |name: &str, fact| EnvVar { name: name.into(), value: Text::host(fact) };
    pod.containers[0].env = vec![
        fact("API_HOST", HostFact::ServiceIp(0)),
        EnvVar { name: "API_PORT".into(), value: url(0) },
        EnvVar { name: "DB_PORT".into(), value: url(1) },
        fact("IPS", HostFact::PodIps),
    ];
    let mut case = Case::new(pod);
    let id = case.id("setup");
    case.run_until(|r| matches!(r, Request::CreateContainer(c) if c.container_id == id));
    let with = |changes: &[(&str, &str)]| {
        let mut request = case.create("setup");
        for (from, to) in changes {
            let entry = process(&mut request).Env.iter_mut().find(|entry| entry.starts_with(from));
            *entry.unwrap() = format!("{from}={to}");
        }
        request
    };
    case.allowed(with(&[]));
    case.allowed(with(&[("API_HOST", "10.96.0.1"), ("API_PORT", "tcp://10.96.0.1:443")]));
    case.allowed(with(&[("DB_PORT", "tcp://10.96.0.7:443")]));
    for list in ["10.0.0.1,fd00::1", "fd00::1,10.0.0.1", "fd00::1"] {
        case.allowed(with(&[("IPS", list)]));
    }
    for changes in [
        &[("API_HOST", "10.96.0.1")][..],
        &[("API_PORT", "tcp://10.96.0.1:443")],
        &[("API_HOST", "evil"), ("API_PORT", "tcp://evil:443")],
        &[("DB_PORT", "tcp://10.96.0.7:444")],
        &[("DB_PORT", "http://10.96.0.7:443")],
        &[("DB_PORT", "tcp://10.96.0.7@evil:443")],
        &[("DB_PORT", "tcp://$(service-ip-1):443")],
        &[("IPS", "")],
        &[("IPS", "10.0.0.1,")],
        &[("IPS", "10.0.0.1,evil")],
        &[("IPS", "10.0.0.1,fd00::1,fd00::2")],
        &[("IPS", "10.0.0.1 fd00::1")],
    ] {
        assert!(case.decide(with(changes)).is_err(), "{changes:?}");
    }
    // What one container was told is what the others are told.
    let shown = ah_policygen::show(
        &ah_policygen::generate(&case.pod, &ah_policygen::Options::default()).unwrap().policy,
    );
    assert!(shown.unwrap().to_string().contains("$(service-ip-1): the address of service db"));
}

#[test]
fn attack_env_variable_removed() {
    tampered("/OCI/Process/Env/0", |request| process(request).Env.clear());
    tampered("/OCI/Process/Env/3", |request| drop(process(request).Env.remove(3)));
    tampered("/OCI/Process/Env/5", |request| drop(process(request).Env.pop()));
}

#[test]
fn attack_command_changed() {
    tampered("/OCI/Process/Args/0", |request| process(request).Args[0] = "/bin/sh".into());
    tampered("/OCI/Process/Args/2", |request| process(request).Args.push("--debug".into()));
    tampered("/OCI/Process/Args/1", |request| drop(process(request).Args.pop()));
    tampered("/OCI/Process/Cwd", |request| process(request).Cwd = "/data".into());
}

#[test]
fn attack_value_of_the_host_out_of_its_bounds() {
    // The address was fixed by the init container; the first use is bounded by its type.
    tampered("/OCI/Process/Env/4", |request| process(request).Env[4] = "POD_IP=10.0.2.16".into());
    let case = Case::before("setup");
    let with = |entry: &str| {
        let mut request = case.create("setup");
        process(&mut request).Env[4] = entry.to_owned();
        request
    };
    case.allowed(with("POD_IP=10.9.8.7"));
    case.allowed(with("POD_IP=fd00::7"));
    for value in [
        "$(pod-ip)",
        "",
        "10.9.8",
        "10.9.8.7;x",
        "300.1.1.1",
        "10.9.8.7\n",
        "evil.example",
        "٣.1.1.1",
    ] {
        case.denied(with(&format!("POD_IP={value}")), "/OCI/Process/Env/4");
    }
    let mut node = case.create("setup");
    process(&mut node).Env[5] = "NODE=node/../x".into();
    case.denied(node, "/OCI/Process/Env/5");
}

#[test]
fn attack_placeholder_sent_as_it_is() {
    tampered("/storages/0/source", |request| request.storages[0].source = "$(pci-path-0)".into());
    tampered("/OCI/Linux/CgroupsPath", |request| {
        linux(request).CgroupsPath = "$(cgroups-path)".into();
    });
    tampered("/OCI/Mounts/7/source", |request| {
        let mount = &mut spec(request).Mounts[7];
        let parts: Vec<&str> = mount.source.splitn(4, '-').collect();
        mount.source = format!("{}-{}-$(file-id-7)-{}", parts[0], parts[1], parts[3]);
    });
}

#[test]
fn attack_extra_container() {
    let mut larger = pod();
    larger.containers.push(container("miner", Role::Main));
    let case = Case::before("web");
    case.allowed(case.create("web"));
    let mut host = case.host.clone();
    host.container_ids.insert("miner".into(), "e".repeat(64));
    for file in ["hosts", "termination-log", "hostname", "resolv.conf"] {
        host.file_ids.insert(format!("{}/{file}", "e".repeat(64)), "0123456789abcdef".into());
    }
    host.pci_paths.extend(ah_policygen::stand_in_host(&larger).pci_paths);
    let miner = requests::create_container(&larger, 3, &host).unwrap();
    case.denied(miner, "/OCI/Annotations/io.kubernetes.cri.container-name");
}

#[test]
fn attack_container_twice() {
    let mut case = Case::before("web");
    let request = case.create("web");
    case.commit(request.clone());
    // The same request again is a retry without effect; the same container under another id is not.
    assert!(case.allowed(request.clone()).is_repeat());
    let text = serde_json::to_string(&request).unwrap();
    let other = text.replace(&case.id("web"), &"e".repeat(64));
    let other: CreateContainerRequest = serde_json::from_str(&other).unwrap();
    case.denied(other, "created already");
    let mut changed = request;
    process(&mut changed).Args.push("x".into());
    case.denied(changed, "/container_id");
}

#[test]
fn attack_container_order_swapped() {
    let case = Case::before("web");
    case.allowed(case.create("web"));
    case.denied(case.create("db"), "created before its turn: web comes first");
    let case = Case::before("setup");
    case.denied(case.create("web"), "created before its turn: setup comes first");
}

/// Neither leaving the init container out, nor not starting it, nor not waiting for it, nor killing it gets a host past it.
#[test]
fn attack_init_container_not_run_to_its_end() {
    let started = || {
        let mut case = Case::before("setup");
        case.commit(case.create("setup"));
        case.denied(case.create("web"), "created before its turn: setup comes first");
        let container_id = case.id("setup");
        case.commit(StartContainerRequest { container_id, ..Default::default() });
        case.denied(case.create("web"), "created before its turn: setup comes first");
        case
    };
    for (exit_code, allowed) in [(0, true), (1, false), (137, false)] {
        for removed in [false, true] {
            let mut case = started();
            let container_id = case.id("setup");
            case.state.note_exit(&container_id, exit_code);
            if removed {
                case.commit(RemoveContainerRequest { container_id, ..Default::default() });
            }
            match allowed {
                true => drop(case.allowed(case.create("web"))),
                false => {
                    case.denied(case.create("web"), "setup comes first");
                }
            }
        }
    }
    // Removed while it runs: the guest ends it, and has seen no end of its own.
    let mut case = started();
    let container_id = case.id("setup");
    case.commit(RemoveContainerRequest { container_id, ..Default::default() });
    case.denied(case.create("web"), "setup comes first");
}

#[test]
fn attack_container_before_the_sandbox() {
    let case = Case::new(pod());
    let sandbox = requests::create_sandbox_container(&case.pod, &case.host).unwrap();
    case.denied(sandbox.clone(), "there is no sandbox yet");
    let mut case = case;
    case.commit(requests::create_sandbox(&case.pod, &case.host));
    case.denied(case.create("setup"), "(sandbox) comes first");
    case.allowed(sandbox);
}

#[test]
fn attack_mount_of_a_host_path() {
    tampered("/OCI/Mounts/12", |request| {
        spec(request).Mounts.push(Mount {
            destination: "/host".into(),
            source: "/".into(),
            type_: "bind".into(),
            options: vec!["rbind".into()],
            ..Default::default()
        });
    });
    tampered("/OCI/Mounts/6/source", |request| spec(request).Mounts[6].source = "/etc".into());
    tampered("/OCI/Mounts/7/source", |request| {
        spec(request).Mounts[7].source = "/run/kata-containers/shared/containers/x".into();
    });
}

#[test]
fn attack_mounts_dropped_or_changed() {
    tampered("/OCI/Mounts/0", |request| spec(request).Mounts.clear());
    tampered("/OCI/Mounts/6/destination", |request| drop(spec(request).Mounts.remove(6)));
    tampered("/OCI/Mounts/4/options/3", |request| spec(request).Mounts[4].options[3] = "rw".into());
    tampered("/OCI/Mounts/6/destination", |request| {
        spec(request).Mounts[6].destination = "/srv".into();
    });
}

#[test]
fn attack_limits_and_identity_changed() {
    tampered("/OCI/Process/Rlimits/0", |request| {
        process(request)
            .Rlimits
            .push(POSIXRlimit { Type: "RLIMIT_CORE".into(), ..Default::default() });
    });
    tampered("/OCI/Process/OOMScoreAdj", |request| process(request).OOMScoreAdj = -1000);
    tampered("/OCI/Process/ApparmorProfile", |request| {
        process(request).ApparmorProfile = "unconfined".into();
    });
    tampered("/OCI/Process/SelinuxLabel", |request| process(request).SelinuxLabel = "x".into());
    tampered("/OCI/Process/ConsoleSize", |request| {
        process(request).ConsoleSize = MessageField::some(ConsoleSize::default());
    });
    tampered("/OCI/Hostname", |request| spec(request).Hostname = "other".into());
    tampered("/OCI/Linux/Resources/CPU/Shares", |request| {
        linux(request).Resources.as_mut().unwrap().CPU.as_mut().unwrap().Shares = 4;
    });
    tampered("/OCI/Linux/Resources/Memory", |request| {
        linux(request).Resources.as_mut().unwrap().Memory = MessageField::some(Default::default());
    });
    tampered("/OCI/Process/User/UID", |request| {
        process(request).User.as_mut().unwrap().UID = 0;
    });
    tampered("/OCI/Process/User/AdditionalGids/1", |request| {
        process(request).User.as_mut().unwrap().AdditionalGids.push(0);
    });
    tampered("/OCI/Process/NoNewPrivileges", |request| {
        let process = process(request);
        process.NoNewPrivileges = !process.NoNewPrivileges;
    });
    tampered("/OCI/Process/Capabilities/Ambient/0", |request| {
        let caps = process(request).Capabilities.as_mut().unwrap();
        caps.Ambient.push("CAP_SYS_ADMIN".into());
    });
    tampered("/string_user", |request| {
        request.string_user = MessageField::some(StringUser::default());
    });
    tampered("/OCI/Process/Terminal", |request| process(request).Terminal = true);
}

#[test]
fn attack_cgroup_path_of_another_container() {
    let case = Case::before("web");
    let with = |path: String| {
        let mut request = case.create("web");
        linux(&mut request).CgroupsPath = path;
        request
    };
    let (web, db) = (case.id("web"), case.id("db"));
    case.allowed(with(format!("/kubepods/besteffort/podx/{web}")));
    case.allowed(with(format!("kubepods-pod1.slice:cri-containerd:{web}")));
    for path in [
        String::new(),
        "/".into(),
        format!("/kubepods/{db}"),
        format!("/../{web}"),
        format!("/a b/{web}"),
    ] {
        case.denied(with(path), "/OCI/Linux/CgroupsPath");
    }
}

#[test]
fn attack_root_path_elsewhere() {
    let evil = "/x/run/kata-containers/gid/rootfs/../../../../tmp/evil";
    tampered("/OCI/Root/Path", |request| {
        spec(request).Root.as_mut().unwrap().Path = evil.into();
    });
    tampered("/OCI/Root/Readonly", |request| {
        let root = spec(request).Root.as_mut().unwrap();
        root.Readonly = !root.Readonly;
    });
    tampered("/storages/2/mount_point", |request| {
        request.storages[2].mount_point = "/run/kata-containers/other/rootfs".into();
    });
}

#[test]
fn attack_annotation_added_or_changed() {
    tampered("/OCI/Annotations/io.kubernetes.cri.untrusted", |request| {
        spec(request).Annotations.insert("io.kubernetes.cri.untrusted".into(), "x".into());
    });
    tampered("/OCI/Annotations/io.katacontainers.pkg.oci.bundle_path", |request| {
        let key = "io.katacontainers.pkg.oci.bundle_path";
        spec(request).Annotations.insert(key.into(), "/anywhere".into());
    });
    tampered("/OCI/Annotations/io.kubernetes.cri.sandbox-name", |request| {
        let key = "io.kubernetes.cri.sandbox-name";
        spec(request).Annotations.insert(key.into(), "shopxfront".into());
    });
}

#[test]
fn attack_namespaces_hooks_devices_and_paths() {
    tampered("/OCI/Linux/Namespaces/4", |request| {
        let path = "/proc/1/ns/cgroup".into();
        let cgroup = LinuxNamespace { Type: "cgroup".into(), Path: path, ..Default::default() };
        linux(request).Namespaces.push(cgroup);
    });
    tampered("/OCI/Linux/Namespaces/2/Path", |request| {
        linux(request).Namespaces[2].Path = "/proc/1/ns/pid".into();
    });
    tampered("/OCI/Linux/Namespaces/3", |request| drop(linux(request).Namespaces.pop()));
    tampered("/OCI/Hooks", |request| {
        let hook = Hook { Path: "/bin/sh".into(), ..Default::default() };
        let hooks = Hooks { Prestart: vec![hook], ..Default::default() };
        spec(request).Hooks = MessageField::some(hooks);
    });
    tampered("/OCI/Linux/Devices/0", |request| {
        let device =
            LinuxDevice { Path: "/dev/mem".into(), Type: "c".into(), ..Default::default() };
        linux(request).Devices.push(device);
    });
    tampered("/devices/0", |request| request.devices.push(Default::default()));
    tampered("/OCI/Linux/Resources/Devices/0", |request| {
        let all = LinuxDeviceCgroup { Allow: true, Access: "rwm".into(), ..Default::default() };
        linux(request).Resources.as_mut().unwrap().Devices.push(all);
    });
    tampered("/OCI/Linux/Resources/BlockIO", |request| {
        linux(request).Resources.as_mut().unwrap().BlockIO =
            MessageField::some(LinuxBlockIO::default());
    });
    tampered("/OCI/Linux/MaskedPaths/0", |request| linux(request).MaskedPaths.clear());
    tampered("/OCI/Linux/ReadonlyPaths/0", |request| drop(linux(request).ReadonlyPaths.remove(0)));
    tampered("/OCI/Linux/Sysctl/kernel.core_pattern", |request| {
        linux(request).Sysctl.insert("kernel.core_pattern".into(), "|/x".into());
    });
    tampered("/OCI/Linux/Seccomp", |request| linux(request).Seccomp = MessageField::none());
    tampered("/OCI/Linux/Seccomp/DefaultAction", |request| {
        let filter: &mut LinuxSeccomp = linux(request).Seccomp.as_mut().unwrap();
        filter.DefaultAction = "SCMP_ACT_ALLOW".into();
    });
    tampered("/OCI/Linux/UIDMappings/0", |request| {
        linux(request).UIDMappings.push(LinuxIDMapping::default());
    });
    tampered("/OCI/Linux/RootfsPropagation", |request| {
        linux(request).RootfsPropagation = "shared".into();
    });
    tampered("/OCI/Version", |request| spec(request).Version = "1.0.0".into());
}

#[test]
fn attack_stdio_ports_and_sharing() {
    tampered("/stdin_port", |request| request.stdin_port = 1);
    tampered("/stdout_port", |request| request.stdout_port = 1);
    tampered("/stderr_port", |request| request.stderr_port = 1);
    tampered("/sandbox_pidns", |request| request.sandbox_pidns = true);
    tampered("/shared_mounts/0", |request| request.shared_mounts.push(SharedMount::default()));
    tampered("/exec_id", |request| request.exec_id = "other".into());
}

#[test]
fn attack_container_id_of_another_form() {
    let case = Case::before("web");
    let with = |id: &str| {
        let text = serde_json::to_string(&case.create("web")).unwrap();
        serde_json::from_str::<CreateContainerRequest>(&text.replace(&case.id("web"), id)).unwrap()
    };
    case.allowed(with(&"e".repeat(64)));
    for id in ["", "sandbox", "..", "../../etc", &"E".repeat(64), &"e".repeat(63), &"e".repeat(65)]
    {
        case.denied(with(id), "/container_id");
    }
    case.denied(with(&case.host.sandbox_id), "/container_id");
}

#[test]
fn attack_volume_storage_elsewhere() {
    tampered("/storages/3/mount_point", |request| {
        request.storages[3].mount_point = "/run/kata-containers/sandbox/ephemeral/other".into();
    });
    tampered("/storages/3/options/1", |request| request.storages[3].options.push("suid".into()));
    tampered("/storages/3/fs_group", |request| {
        request.storages[3].fs_group = MessageField::some(Default::default());
    });
}

#[test]
fn attack_disk_path_out_of_its_bounds() {
    let case = Case::before("web");
    let with = |source: &str| {
        let mut request = case.create("web");
        request.storages[0].source = source.into();
        request
    };
    for source in ["02", "03.1", "1f/02"] {
        case.allowed(with(source));
    }
    for source in ["", "/dev/vda", "../02", "02/../03", "0x2", "02//03", "/02"] {
        case.denied(with(source), "/storages/0/source");
    }
}

/// Whatever single value of the request is replaced, it is denied or among the host's choices.
#[test]
fn attack_any_single_field_changed() {
    let case = Case::before("web");
    let honest = serde_json::to_value(case.create("web")).unwrap();
    let free = ["/OCI/Linux/CgroupsPath", "/storages/0/source", "/storages/1/source"];
    let mut places = Vec::new();
    leaves(&honest, String::new(), &mut places);
    assert!(places.len() > 150, "{}", places.len());
    for place in places.iter().filter(|place| !free.contains(&place.as_str())) {
        let mut changed = honest.clone();
        let value = changed.pointer_mut(place).unwrap();
        let other = match value {
            serde_json::Value::Bool(value) => serde_json::json!(!*value),
            serde_json::Value::Number(number) => serde_json::json!(number.as_i64().unwrap() + 1),
            serde_json::Value::String(text) => serde_json::json!(format!("{text}x")),
            _ => continue,
        };
        *value = other;
        let request = Request::from_json("CreateContainer", changed).unwrap();
        assert!(case.decide(request).is_err(), "{place}");
    }
}

fn leaves(value: &serde_json::Value, place: String, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                leaves(value, format!("{place}/{index}"), out);
            }
        }
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                leaves(value, format!("{place}/{}", key.replace('/', "~1")), out);
            }
        }
        _ => out.push(place),
    }
}
