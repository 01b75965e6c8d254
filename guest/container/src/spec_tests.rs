use super::*;

fn good() -> oci::Spec {
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..Default::default() };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| oci::Mount {
        destination: destination.into(),
        type_: kind.into(),
        source: source.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Default::default()
    };
    let process = oci::Process {
        User: Some(oci::User {
            UID: 33,
            GID: 33,
            AdditionalGids: vec![33, 44],
            ..Default::default()
        })
        .into(),
        Args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        Env: vec!["PATH=/bin".into(), "A=b=c".into()],
        Cwd: "/srv".into(),
        Capabilities: Some(oci::LinuxCapabilities {
            Bounding: vec!["CAP_CHOWN".into(), "CAP_KILL".into()],
            ..Default::default()
        })
        .into(),
        NoNewPrivileges: true,
        OOMScoreAdj: 1000,
        Rlimits: vec![oci::POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Hard: 1024,
            Soft: 512,
            ..Default::default()
        }],
        ..Default::default()
    };
    let linux = oci::Linux {
        Namespaces: ["pid", "ipc", "uts", "mount"].map(namespace).into(),
        CgroupsPath: "/kubepods/besteffort/podx/c1".into(),
        MaskedPaths: vec!["/proc/kcore".into()],
        ReadonlyPaths: vec!["/proc/sys".into()],
        Resources: Some(oci::LinuxResources {
            CPU: Some(oci::LinuxCPU { Shares: 2, Period: 100_000, ..Default::default() }).into(),
            Memory: Some(oci::LinuxMemory { Limit: 1 << 20, Swap: 1 << 20, ..Default::default() })
                .into(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    oci::Spec {
        Version: "1.1.0".into(),
        Process: Some(process).into(),
        Root: Some(oci::Root { Path: "/elsewhere".into(), Readonly: true, ..Default::default() })
            .into(),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "relatime", "ro"]),
            mount("/etc/hosts", "bind", "/run/hosts", &["rbind", "rprivate", "ro"]),
        ],
        Linux: Some(linux).into(),
        ..Default::default()
    }
}

fn context() -> SpecContext {
    SpecContext {
        root: "/run/kata-containers/c1/rootfs".into(),
        cgroup: "/c1".into(),
        hostname: "web".into(),
        home: "/var/www".into(),
        shared_pid: None,
    }
}

fn convert(change: impl FnOnce(&mut oci::Spec)) -> Result<Value, SpecError> {
    let mut spec = good();
    change(&mut spec);
    container_spec(&spec, &context())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut oci::Spec), word: &str) {
    match convert(change) {
        Ok(value) => panic!("accepted: {value}"),
        Err(e) => assert!(e.to_string().contains(word), "{e} does not say {word:?}"),
    }
}

fn process(spec: &mut oci::Spec) -> &mut oci::Process {
    spec.Process.as_mut().unwrap()
}

fn linux_of(spec: &mut oci::Spec) -> &mut oci::Linux {
    spec.Linux.as_mut().unwrap()
}

fn resources_of(spec: &mut oci::Spec) -> &mut oci::LinuxResources {
    linux_of(spec).Resources.as_mut().unwrap()
}

#[test]
fn a_pod_s_spec_is_carried_over() {
    let value = convert(|_| ()).unwrap();
    assert_eq!(value["root"]["path"], "/run/kata-containers/c1/rootfs", "the guest's root");
    assert_eq!(value["linux"]["cgroupsPath"], "/c1", "the guest's cgroup");
    assert_eq!(value["process"]["env"], json!(["PATH=/bin", "A=b=c", "HOME=/var/www"]));
    assert_eq!(value["process"]["oomScoreAdj"], 1000);
    assert_eq!(value["process"]["noNewPrivileges"], true);
    assert_eq!(value["linux"]["namespaces"][0]["path"], "/proc/self/ns/ipc");
    assert_eq!(value["linux"]["namespaces"][2], json!({ "type": "pid" }));
    let back: Spec = serde_json::from_value(value).unwrap();
    assert_eq!(back.mounts().as_ref().unwrap().len(), 7);
}

#[test]
fn a_shared_pid_namespace_is_joined() {
    let context = SpecContext { shared_pid: Some(7), ..context() };
    let value = container_spec(&good(), &context).unwrap();
    assert_eq!(value["linux"]["namespaces"][2]["path"], "/proc/7/ns/pid");
}

#[test]
fn missing_capabilities_are_no_capabilities() {
    let value = convert(|s| process(s).Capabilities = None.into()).unwrap();
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        assert_eq!(value["process"]["capabilities"][set], json!([]), "{set}");
    }
}

#[test]
fn attack_container_that_makes_device_nodes() {
    let all = || vec!["CAP_CHOWN".into(), "CAP_MKNOD".into(), "CAP_KILL".into()];
    let mut spec = good();
    process(&mut spec).Capabilities = Some(oci::LinuxCapabilities {
        Bounding: all(),
        Effective: all(),
        Inheritable: all(),
        Permitted: all(),
        Ambient: all(),
        ..Default::default()
    })
    .into();
    let first = container_spec(&spec, &context()).unwrap()["process"].clone();
    let exec = exec_process(process(&mut spec), &ExecContext { home: "/".into() }).unwrap();
    for made in [first, exec] {
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            assert_eq!(made["capabilities"][set], json!(["CAP_CHOWN", "CAP_KILL"]), "{set}");
        }
    }
    // No second way to write the name.
    for name in ["cap_mknod", "MKNOD", "CAP_mknod", "CAP_MKNOD ", "CAP_27"] {
        let change = |s: &mut oci::Spec| {
            process(s).Capabilities.as_mut().unwrap().Bounding = vec![name.into()];
        };
        assert!(convert(change).is_err(), "{name:?}");
    }
}

#[test]
fn attack_device_node_behind_a_bind() {
    let value = convert(|s| s.Mounts[6].options.push("dev".into())).unwrap();
    let options = json!(["rbind", "rprivate", "ro", "dev", "nodev"]);
    assert_eq!(value["mounts"][6]["options"], options);
    assert!(!value["mounts"][1]["options"].as_array().unwrap().contains(&json!("nodev")), "/dev");
}

#[test]
fn attack_field_that_would_be_ignored() {
    refused(|s| process(s).ApparmorProfile = "x".into(), "ApparmorProfile");
    refused(|s| process(s).SelinuxLabel = "x".into(), "SelinuxLabel");
    refused(|s| process(s).User.as_mut().unwrap().Username = "root".into(), "Username");
    refused(|s| process(s).OOMScoreAdj = 1001, "OOMScoreAdj");
    refused(|s| process(s).Capabilities.as_mut().unwrap().Ambient = vec!["ALL".into()], "CAP_");
    refused(
        |s| process(s).Capabilities.as_mut().unwrap().Ambient = vec!["CAP_EVERYTHING".into()],
        "runtime spec",
    );
    refused(|s| process(s).Rlimits[0].Type = "RLIMIT_NEW".into(), "runtime spec");
    refused(|s| s.Hostname = "other".into(), "Hostname");
    refused(|s| s.Version = "2.0.0".into(), "Version");
    refused(|s| s.Windows = Some(oci::Windows::default()).into(), "Windows");
    refused(|s| linux_of(s).MountLabel = "x".into(), "MountLabel");
    refused(|s| linux_of(s).IntelRdt = Some(Default::default()).into(), "IntelRdt");
    refused(|s| linux_of(s).RootfsPropagation = "shared".into(), "RootfsPropagation");
    refused(|s| linux_of(s).UIDMappings.push(Default::default()), "UIDMappings");
    refused(
        |s| drop(linux_of(s).Sysctl.insert("kernel.core_pattern".into(), "|x".into())),
        "Sysctl",
    );
    refused(|s| resources_of(s).Devices.push(Default::default()), "Devices");
    refused(|s| resources_of(s).BlockIO = Some(Default::default()).into(), "BlockIO");
    refused(|s| resources_of(s).Memory.as_mut().unwrap().DisableOOMKiller = true, "Memory");
    refused(|s| resources_of(s).CPU.as_mut().unwrap().RealtimePeriod = 1, "CPU");
}

#[test]
fn attack_hook_in_the_spec() {
    let hook = oci::Hook { Path: "/bin/sh".into(), ..Default::default() };
    let hooks = oci::Hooks { StartContainer: vec![hook], ..Default::default() };
    refused(|s| s.Hooks = Some(hooks).into(), "/bin/sh");
    convert(|s| s.Hooks = Some(oci::Hooks::default()).into()).unwrap();
}

#[test]
fn attack_namespace_of_the_guest() {
    refused(|s| linux_of(s).Namespaces[0].Path = "/proc/1/ns/pid".into(), "Path");
    refused(|s| drop(linux_of(s).Namespaces.remove(0)), "Namespaces");
    refused(|s| drop(linux_of(s).Namespaces.pop()), "Namespaces");
    for kind in ["user", "network", "time", "none"] {
        refused(|s| linux_of(s).Namespaces[1].Type = kind.into(), kind);
    }
    refused(|s| linux_of(s).Namespaces[1].Type = "pid".into(), "once");
}

#[test]
fn attack_device_in_the_spec() {
    let device =
        oci::LinuxDevice { Path: "/dev/vda".into(), Type: "b".into(), ..Default::default() };
    refused(|s| linux_of(s).Devices.push(device), "/dev/vda");
}

#[test]
fn attack_mount_of_another_kind() {
    for kind in ["ext4", "overlay", "debugfs", "securityfs", "9p", "nfs", ""] {
        refused(|s| s.Mounts[0].type_ = kind.into(), "Mounts.type");
    }
    for option in ["shared", "rshared", "remount", "idmap", "size=1", "context=x", "uid=0,exec"] {
        refused(|s| s.Mounts[0].options.push(option.into()), "Mounts.options");
    }
    refused(|s| s.Mounts[1].options.push("size=1,suid".into()), "Mounts.options");
    // The runtime would make a bind of the guest's /etc out of it.
    refused(
        |s| {
            s.Mounts[1].source = "/etc".into();
            s.Mounts[1].options.push("bind".into());
        },
        "Mounts.type",
    );
    for destination in ["/", "//", "/.", "etc", "/a/../etc", "/a\0"] {
        refused(|s| s.Mounts[6].destination = destination.into(), "Mounts.destination");
    }
}

#[test]
fn attack_process_text_that_the_kernel_reads_differently() {
    refused(|s| process(s).Args = vec![], "Args");
    refused(|s| process(s).Args = vec![String::new()], "Args");
    refused(|s| process(s).Args.push("a\0b".into()), "Args");
    for env in ["A", "=x", "A=\0"] {
        refused(|s| process(s).Env.push(env.into()), "Env");
    }
    for cwd in ["", "srv", "/srv/.."] {
        refused(|s| process(s).Cwd = cwd.into(), "Cwd");
    }
    refused(|s| linux_of(s).MaskedPaths.push("proc".into()), "MaskedPaths");
}

#[test]
fn a_filter_is_carried_over() {
    let filter = || oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".into(),
        Architectures: vec!["SCMP_ARCH_X86_64".into()],
        Syscalls: vec![oci::LinuxSyscall {
            Names: vec!["mkdir".into()],
            Action: "SCMP_ACT_ERRNO".into(),
            ErrnoRet: Some(oci::linux_syscall::ErrnoRet::Errnoret(1)),
            Args: vec![oci::LinuxSeccompArg {
                Index: 1,
                Value: 2,
                ValueTwo: 3,
                Op: "SCMP_CMP_MASKED_EQ".into(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let value = convert(|s| linux_of(s).Seccomp = Some(filter()).into()).unwrap();
    assert_eq!(value["linux"]["seccomp"]["syscalls"][0]["errnoRet"], 1);
    let change = |change: &dyn Fn(&mut oci::LinuxSeccomp)| {
        let mut filter = filter();
        change(&mut filter);
        convert(|s| linux_of(s).Seccomp = Some(filter).into())
    };
    assert!(change(&|f| f.Syscalls[0].Action = "SCMP_ACT_NOTIFY".into()).is_err());
    assert!(change(&|f| f.Syscalls[0].Action = "SCMP_ACT_NOTHING".into()).is_err());
    assert!(change(&|f| f.DefaultAction = String::new()).is_err());
}

#[test]
fn an_exec_is_carried_over() {
    let mut spec = good();
    let context = ExecContext { home: "/root".into() };
    let value = exec_process(process(&mut spec), &context).unwrap();
    assert_eq!(value["cwd"], "/srv");
    process(&mut spec).SelinuxLabel = "x".into();
    assert!(exec_process(process(&mut spec), &context).is_err());
}
