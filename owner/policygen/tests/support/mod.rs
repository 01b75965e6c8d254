//! A pod, its policy, and its honest requests up to a point.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ah_agent_api::agent::CreateContainerRequest;
use ah_agent_api::{PolicyRequest, Request};
use ah_digest::Sha256;
use ah_permit::{Denial, Permit, Policy, State, decide};
use ah_pod::{
    Accounts, Container, ContainerSecurity, DnsSettings, EnvVar, HostFact, HostValues, ImageFacts,
    Layer, Logs, Medium, Pod, PodName, PodSecurity, Resources, RestartPolicy, Role, RunAs, Seccomp,
    Text, Volume, VolumeMount, VolumeSource, requests,
};
use ah_policygen::{Options, ends, generate, honest_requests, stand_in_host};
use ah_verity::VerityInfo;

pub(crate) fn layer(name: &str) -> Layer {
    let root_hash = Sha256::of(format!("root of {name}"));
    Layer {
        diff_id: Sha256::of(name),
        verity: VerityInfo { root_hash, data_blocks: 3, salt: [0; 32] },
    }
}

pub(crate) fn image(name: &str) -> ImageFacts {
    ImageFacts {
        reference: format!("registry.example/{name}@sha256:{}", Sha256::of(name)),
        entrypoint: vec![format!("/bin/{name}")],
        cmd: vec!["--serve".to_owned()],
        env: vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()],
        working_dir: "/srv".to_owned(),
        user: "1000:1000".to_owned(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![layer("base"), layer(name)],
    }
}

pub(crate) fn container(name: &str, role: Role) -> Container {
    Container {
        name: name.to_owned(),
        role,
        image: image(name),
        command: Vec::new(),
        args: Vec::new(),
        env: vec![
            EnvVar { name: "MODE".to_owned(), value: Text::from("quiet $(UNKNOWN)") },
            EnvVar { name: "POD_IP".to_owned(), value: Text::host(HostFact::PodIp) },
            EnvVar { name: "NODE".to_owned(), value: Text::host(HostFact::NodeName) },
        ],
        working_dir: None,
        security: ContainerSecurity { seccomp: Seccomp::RuntimeDefault, ..Default::default() },
        resources: Resources::default(),
        mounts: vec![VolumeMount {
            volume: "data".to_owned(),
            path: "/data".to_owned(),
            read_only: false,
            sub_path: None,
        }],
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".to_owned(),
        execs: vec![vec!["/bin/check".to_owned(), "--now".to_owned()]],
        release_socket: false,
        choices: Default::default(),
    }
}

/// An init container, a web server and a database.
pub(crate) fn pod() -> Pod {
    Pod {
        name: PodName::Fixed("shop.front".to_owned()),
        namespace: None,
        hostname: None,
        subdomain: None,
        host_aliases: Vec::new(),
        dns: DnsSettings::default(),
        security: PodSecurity {
            run_as: RunAs { user: Some(1000), group: Some(1000) },
            sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "256".to_owned())]),
            ..Default::default()
        },
        share_process_namespace: false,
        volumes: vec![Volume {
            name: "data".to_owned(),
            source: VolumeSource::EmptyDir { medium: Medium::Memory, size_limit_bytes: None },
        }],
        services: Vec::new(),
        containers: vec![
            container("setup", Role::Init),
            container("web", Role::Main),
            container("db", Role::Main),
        ],
        restart_policy: RestartPolicy::Always,
        termination_grace_seconds: 30,
        logs: Logs::Readable,
        whole: Default::default(),
        owner_keys: Default::default(),
    }
}

/// The policy of a pod; the usual one is made once.
fn policy_text(of: &Pod) -> String {
    static USUAL: OnceLock<String> = OnceLock::new();
    let make = || generate(of, &Options::default()).unwrap().policy;
    if *of == pod() { USUAL.get_or_init(make).clone() } else { make() }
}

/// A pod's policy with its state after some requests.
pub(crate) struct Case {
    pub(crate) pod: Pod,
    pub(crate) host: HostValues,
    pub(crate) policy: Policy,
    pub(crate) state: State,
}

impl Case {
    pub(crate) fn new(pod: Pod) -> Self {
        let policy = Policy::compile(&policy_text(&pod)).unwrap();
        Self { host: stand_in_host(&pod), policy, state: State::new(), pod }
    }

    /// The state before the container is created by an honest host.
    pub(crate) fn before(name: &str) -> Self {
        let mut case = Self::new(pod());
        let id = case.host.container_ids[name].clone();
        case.run_until(|request| {
            matches!(request, Request::CreateContainer(create) if create.container_id == id)
        });
        case
    }

    /// The state in which `web` runs.
    pub(crate) fn running(pod: Pod) -> Self {
        let mut case = Self::new(pod);
        let id = case.host.container_ids["web"].clone();
        case.run_until(
            |request| matches!(request, Request::StatsContainer(stats) if stats.container_id == id),
        );
        case
    }

    pub(crate) fn run_until(&mut self, stop: impl Fn(&Request) -> bool) {
        for request in honest_requests(&self.pod, &self.host).unwrap() {
            if stop(&request) {
                return;
            }
            self.follow(request);
        }
        panic!("no such request");
    }

    /// The request is carried out; what it waits for ends well.
    pub(crate) fn follow(&mut self, request: Request) {
        let ended = ends(&request).map(str::to_owned);
        self.commit(request);
        if let Some(id) = ended {
            self.state.note_exit(&id, 0);
        }
    }

    pub(crate) fn commit<R: PolicyRequest>(&mut self, request: R) {
        let permit = self.allowed(request);
        self.state.commit(permit.into_parts().1).unwrap();
    }

    pub(crate) fn decide<R: PolicyRequest>(&self, request: R) -> Result<Permit<R>, Denial> {
        decide(&self.policy, &self.state, request)
    }

    pub(crate) fn allowed<R: PolicyRequest>(&self, request: R) -> Permit<R> {
        match self.decide(request) {
            Ok(permit) => permit,
            Err(denial) => panic!("{denial}"),
        }
    }

    /// Denied, and the first reason names this field (or has this text).
    pub(crate) fn denied<R: PolicyRequest>(&self, request: R, field: &str) -> Denial {
        let denial = match self.decide(request) {
            Ok(_) => panic!("allowed, expected a denial at {field}"),
            Err(denial) => denial,
        };
        let named = denial
            .reasons
            .iter()
            .any(|reason| reason.field.as_deref() == Some(field) || reason.text.contains(field));
        assert!(named, "expected {field}: {denial}");
        denial
    }

    pub(crate) fn create(&self, name: &str) -> CreateContainerRequest {
        let (index, _) = self.pod.container(name).unwrap();
        requests::create_container(&self.pod, index, &self.host).unwrap()
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.host.container_ids[name].clone()
    }
}

/// The honest request of `web` is allowed; with the change it is denied at `field`.
pub(crate) fn tampered(field: &str, change: impl FnOnce(&mut CreateContainerRequest)) {
    let case = Case::before("web");
    let mut request = case.create("web");
    case.allowed(request.clone());
    change(&mut request);
    let denial = case.denied(request, field);
    assert_eq!(denial.rule, "CreateContainerRequest");
}
