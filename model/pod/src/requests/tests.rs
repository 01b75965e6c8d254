use std::collections::BTreeMap;

use ah_agent_api::PolicyRequest;
use ah_digest::Sha256;

use super::*;
use crate::{
    Accounts, ContainerSecurity, DnsSettings, EnvVar, HostFact, ImageFacts, Layer, Logs, PodName,
    PodSecurity, Resources, RestartPolicy, Role, RunAs, Seccomp, Text,
};

pub(crate) fn pod(containers: Vec<Container>) -> Pod {
    Pod {
        name: PodName::Fixed("web".into()),
        namespace: None,
        hostname: None,
        subdomain: None,
        host_aliases: Vec::new(),
        dns: DnsSettings::default(),
        security: PodSecurity::default(),
        share_process_namespace: false,
        volumes: Vec::new(),
        services: Vec::new(),
        containers,
        restart_policy: RestartPolicy::Always,
        termination_grace_seconds: 30,
        logs: Logs::Readable,
        whole: Default::default(),
        owner_keys: Default::default(),
    }
}

pub(crate) fn container(name: &str) -> Container {
    Container {
        name: name.into(),
        role: Role::Main,
        image: image(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        security: ContainerSecurity::default(),
        resources: Resources::default(),
        mounts: Vec::new(),
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".into(),
        execs: Vec::new(),
        release_socket: false,
        choices: Default::default(),
    }
}

fn layer(name: &str) -> Layer {
    Layer {
        diff_id: Sha256::of(name),
        verity: VerityInfo {
            root_hash: Sha256::of(format!("root of {name}")),
            data_blocks: 3,
            salt: [0; 32],
        },
    }
}

fn image() -> ImageFacts {
    ImageFacts {
        reference: "registry.example/web@sha256:00".into(),
        entrypoint: vec!["/bin/web".into()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![layer("bottom"), layer("top")],
    }
}

pub(crate) fn host(pod: &Pod) -> HostValues {
    let id = Sha256::of(b"sandbox").to_string();
    let mut host = HostValues::for_user_network(pod, &id, "uid-1", "node");
    for (number, layer) in [layer("bottom"), layer("top")].iter().enumerate() {
        host.pci_paths.insert(layer.verity.root_hash, format!("0{}", number + 2));
    }
    host
}

#[test]
fn the_start_that_is_looked_for_is_every_placeholders() {
    let all = placeholder::ALL.into_iter().chain(placeholder::RESERVED_STEMS);
    for name in all {
        assert!(name.starts_with(placeholder::START), "{name}");
    }
}

#[test]
fn layers_are_storages_top_first_then_the_overlay() {
    let pod = pod(vec![container("app")]);
    let host = host(&pod);
    let request = create_container(&pod, 0, &host).unwrap();
    let id = &host.container_ids["app"];
    let (bottom, top) = (layer("bottom").verity.root_hash, layer("top").verity.root_hash);
    let sources: Vec<_> = request.storages.iter().map(|storage| storage.source.as_str()).collect();
    assert_eq!(sources, ["03", "02", "overlay"]);
    assert_eq!(
        request.storages[0].options,
        [
            "ro".to_owned(),
            format!("X-kata.dmverity.roothash={top}"),
            format!("X-kata.dmverity.salt={}", "0".repeat(64)),
            "X-kata.dmverity.hashoffset=12288".into(),
        ]
    );
    let lower = format!("lowerdir={LAYERS_DIR}/{top}:{LAYERS_DIR}/{bottom}");
    assert_eq!(request.storages[2].options, [lower]);
    assert_eq!(request.storages[2].mount_point, format!("/run/kata-containers/{id}/rootfs"));
    assert_eq!(request.OCI.Root.Path, request.storages[2].mount_point);
}

#[test]
fn the_sandbox_container_has_no_storage() {
    let pod = pod(vec![container("app")]);
    let host = host(&pod);
    let request = create_sandbox_container(&pod, &host).unwrap();
    assert_eq!(request.container_id, host.sandbox_id);
    assert!(request.storages.is_empty());
    assert_eq!(request.OCI.Annotations["io.kubernetes.cri.container-type"], "sandbox");
    assert_eq!(create_sandbox(&pod, &host).sandbox_id, host.sandbox_id);
}

#[test]
fn copied_files_lie_where_the_mounts_look_for_them() {
    let pod = pod(vec![container("app"), container("side")]);
    let host = host(&pod);
    let copied: Vec<String> =
        copy_files(&pod, &host).unwrap().into_iter().map(|request| request.path).collect();
    let mut bound = Vec::new();
    let sandbox = create_sandbox_container(&pod, &host).unwrap();
    let containers = (0..2).map(|index| create_container(&pod, index, &host).unwrap());
    for request in std::iter::once(sandbox).chain(containers) {
        let sources = request.OCI.Mounts.iter().map(|mount| mount.source.clone());
        bound.extend(sources.filter(|source| source.starts_with(files::SHARED_DIR)));
    }
    assert_eq!(copied, bound);
    assert_eq!(copied.len(), 9);
    let one_by_one = copy_container_files(&pod, 1, &host).unwrap();
    assert_eq!(one_by_one[0].path, copied[5]);
}

#[test]
fn equal_sandbox_ids_give_equal_requests() {
    let pod = pod(vec![container("app")]);
    assert_eq!(host(&pod), host(&pod));
    let other = HostValues::for_user_network(&pod, "other", "uid-1", "node");
    assert_ne!(other.container_ids, host(&pod).container_ids);
}

/// The host's values put into the template by plain text replacement give the host's requests:
/// whatever the derivation does, it does it to both alike.
#[test]
fn the_template_with_the_hosts_values_is_the_hosts_request() {
    let mut app = container("app");
    app.env = vec![
        EnvVar { name: "IP".into(), value: Text::host(HostFact::PodIp) },
        EnvVar { name: "NODE".into(), value: Text::host(HostFact::NodeName) },
        EnvVar { name: "UID".into(), value: Text::host(HostFact::PodUid) },
        EnvVar { name: "IPS".into(), value: Text::host(HostFact::PodIps) },
        EnvVar { name: "API".into(), value: Text::host(HostFact::ServiceIp(0)) },
    ];
    let mut pod = pod(vec![app]);
    pod.name = PodName::Generated { prefix: "web-".into() };
    pod.services = vec!["default/kubernetes".into()];
    let host = host(&pod);
    let template = HostValues::placeholders(&pod);
    let real = create_container(&pod, 0, &host).unwrap().to_input().unwrap();
    let mut text = create_container(&pod, 0, &template).unwrap().to_input().unwrap().to_string();
    let id = &host.container_ids["app"];
    for (from, to) in [
        (placeholder::SANDBOX_ID, host.sandbox_id.as_str()),
        (placeholder::SANDBOX_NAME, &host.pod_name),
        (placeholder::SANDBOX_NAMESPACE, &host.namespace),
        (placeholder::POD_UID, &host.pod_uid),
        (placeholder::NODE_NAME, &host.node_name),
        (placeholder::POD_IP, &host.pod_ip),
        (placeholder::POD_IPS, &host.pod_ips),
        ("$(service-ip-0)", &host.service_ips[0]),
        (placeholder::CONTAINER_ID, id),
    ] {
        text = text.replace(from, to);
    }
    for name in ["hosts", "termination-log", "hostname", "resolv.conf"] {
        let file_id = &host.file_ids[&HostValues::file_key(id, name)];
        text = text.replace(&format!("$(file-id)-{name}"), &format!("{file_id}-{name}"));
    }
    text = text.replacen(placeholder::PCI_PATH, "03", 1).replacen(placeholder::PCI_PATH, "02", 1);
    let filled: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(filled, real);
}

#[test]
fn attack_text_that_reads_as_a_value_of_the_host() {
    let mut pod = pod(vec![container("app")]);
    check(&pod).unwrap();
    pod.containers[0].env = vec![EnvVar { name: "A".into(), value: "$(pod-ip)".into() }];
    let expect = RequestError::ReservedText { text: "$(pod-ip)".into(), reserved: "$(pod-ip)" };
    assert_eq!(check(&pod), Err(expect.clone()));
    for text in ["x$(file-id-0)", "$(cgroups-path)", "$(pci-path-1)"] {
        let mut other = pod.clone();
        other.containers[0].env[0].value = text.into();
        assert!(matches!(check(&other), Err(RequestError::ReservedText { .. })), "{text}");
    }
    assert_eq!(create_container(&pod, 0, &host(&pod)), Err(expect));
    pod.containers[0].env = vec![EnvVar { name: "A".into(), value: Text::host(HostFact::PodIp) }];
    check(&pod).unwrap();
    pod.security.sysctls = BTreeMap::from([("$(bundle-id)".into(), "1".into())]);
    assert!(matches!(check(&pod), Err(RequestError::ReservedText { .. })));
}

#[test]
fn exec_is_the_containers_process_with_other_arguments() {
    let mut app = container("app");
    app.image.env = vec!["A=1".into()];
    app.tty = true;
    let pod = pod(vec![app]);
    let host = host(&pod);
    let create = create_container(&pod, 0, &host).unwrap();
    let exec = exec_process(&pod, 0, &["/bin/true".into()], "e1", &host).unwrap();
    assert_eq!(
        (exec.container_id.as_str(), exec.exec_id.as_str()),
        (create.container_id.as_str(), "e1")
    );
    assert_eq!(exec.process.Args, ["/bin/true"]);
    assert_eq!(exec.process.Env, create.OCI.Process.Env);
    assert_eq!(exec.process.User, create.OCI.Process.User);
    assert!(!exec.process.Terminal && create.OCI.Process.Terminal);
}

#[test]
fn a_missing_value_of_the_host_is_named() {
    let pod = pod(vec![container("app")]);
    let full = host(&pod);
    let mut none = full.clone();
    none.container_ids.clear();
    let expect = RequestError::NoContainerId { container: "app".into() };
    assert_eq!(create_container(&pod, 0, &none), Err(expect));
    let mut none = full.clone();
    none.pci_paths.clear();
    assert!(matches!(create_container(&pod, 0, &none), Err(RequestError::NoPciPath { .. })));
    let mut none = full.clone();
    none.file_ids.clear();
    assert!(matches!(create_container(&pod, 0, &none), Err(RequestError::NoFileId { .. })));
    let expect = RequestError::NoContainer { index: 1, count: 1 };
    assert_eq!(create_container(&pod, 1, &full), Err(expect));
}

#[test]
fn an_identity_that_does_not_resolve_names_its_container() {
    let mut app = container("app");
    app.image.user = "nobody".into();
    let pod1 = pod(vec![app]);
    assert!(
        matches!(check(&pod1), Err(RequestError::User { container, .. }) if container == "app")
    );
    let mut pod2 = pod(vec![container("app")]);
    pod2.security.run_as = RunAs { user: None, group: Some(1) };
    assert_eq!(check(&pod2), Err(RequestError::Sandbox(UserError::GroupWithoutUser)));
}

#[test]
fn two_copied_files_of_one_name_are_refused() {
    let mut app = container("app");
    app.termination_message_path = "/tmp/hosts".into();
    let expect = RequestError::FileNameTaken { container: "app".into(), base_name: "hosts".into() };
    assert_eq!(check(&pod(vec![app])), Err(expect));
}

#[test]
fn security_settings_reach_the_spec() {
    let spec = |change: fn(&mut ContainerSecurity)| {
        let mut app = container("app");
        change(&mut app.security);
        let pod = pod(vec![app]);
        create_container(&pod, 0, &host(&pod)).unwrap().OCI.unwrap()
    };
    let plain = spec(|_| ());
    assert!(!plain.Root.Readonly && !plain.Process.NoNewPrivileges);
    assert!(plain.Linux.Seccomp.is_none());
    assert_eq!((plain.Linux.MaskedPaths.len(), plain.Linux.ReadonlyPaths.len()), (11, 5));
    assert!(spec(|security| security.read_only_root = true).Root.Readonly);
    assert!(spec(|security| security.no_new_privileges = true).Process.NoNewPrivileges);
    let filtered = spec(|security| security.seccomp = Seccomp::RuntimeDefault);
    assert_eq!(filtered.Linux.Seccomp.DefaultAction, "SCMP_ACT_ERRNO");
    let privileged = spec(|security| {
        security.privileged = true;
        security.seccomp = Seccomp::RuntimeDefault;
    });
    assert!(privileged.Linux.Seccomp.is_none());
    assert!(privileged.Linux.MaskedPaths.is_empty() && privileged.Linux.ReadonlyPaths.is_empty());
}
