//! A pod with one container that has something of everything: default filter, limits, volume, group, release socket.

use ah_digest::Sha256;
use ah_pod::{
    Accounts, Container, ContainerSecurity, DnsSettings, FsGroup, FsGroupChange, HostValues,
    ImageFacts, Layer, Logs, Medium, Pod, PodName, PodSecurity, Resources, RestartPolicy, Role,
    Seccomp, Volume, VolumeMount, VolumeSource,
};
use ah_verity::VerityInfo;

const SANDBOX_ID: &str = "5555555555555555555555555555555555555555555555555555555555555555";

fn layer(byte: u8) -> Layer {
    let root_hash = Sha256::new([byte; 32]);
    Layer { diff_id: root_hash, verity: VerityInfo { root_hash, data_blocks: 16, salt: [0; 32] } }
}

pub(crate) fn pod() -> Pod {
    let image = ImageFacts {
        reference: format!("example@sha256:{}", Sha256::new([9; 32])),
        entrypoint: vec!["/bin/app".into()],
        cmd: Vec::new(),
        env: vec!["PATH=/bin".into()],
        working_dir: "/srv".into(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![layer(1), layer(2), layer(3)],
    };
    let (volume, path) = ("cache".into(), "/cache".into());
    let mount = VolumeMount { volume, path, read_only: false, sub_path: None };
    let container = Container {
        name: "app".into(),
        role: Role::Main,
        image,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        security: ContainerSecurity {
            seccomp: Seccomp::RuntimeDefault,
            ..ContainerSecurity::default()
        },
        resources: Resources {
            cpu_limit_milli: Some(500),
            memory_limit_bytes: Some(64 << 20),
            ..Resources::default()
        },
        mounts: vec![mount],
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".into(),
        execs: Vec::new(),
        release_socket: true,
        choices: Default::default(),
    };
    Pod {
        name: PodName::Fixed("web".into()),
        namespace: None,
        hostname: None,
        subdomain: None,
        host_aliases: Vec::new(),
        dns: DnsSettings::default(),
        security: PodSecurity {
            fs_group: Some(FsGroup { gid: 2000, change: FsGroupChange::Always }),
            ..PodSecurity::default()
        },
        share_process_namespace: false,
        volumes: vec![Volume {
            name: "cache".into(),
            source: VolumeSource::EmptyDir {
                medium: Medium::Memory,
                size_limit_bytes: Some(1 << 20),
            },
        }],
        services: Vec::new(),
        containers: vec![container],
        restart_policy: RestartPolicy::Never,
        termination_grace_seconds: 5,
        logs: Logs::Readable,
        whole: Default::default(),
        owner_keys: Default::default(),
    }
}

pub(crate) fn host(pod: &Pod) -> HostValues {
    let uid = "11111111-2222-3333-4444-555555555555";
    let mut host = HostValues::for_user_network(pod, SANDBOX_ID, uid, "node");
    for (number, layer) in pod.containers[0].image.layers.iter().enumerate() {
        host.pci_paths.insert(layer.verity.root_hash, format!("{:02x}", number + 3));
    }
    host
}
