//! A pod becomes a policy.

use std::collections::{BTreeMap, BTreeSet};

use ah_agent_api::Request;
use ah_agent_api::agent::CreateContainerRequest;
use ah_permit::{Denial, PolicyError};
use ah_pod::{
    Container, DnsPolicy, HostValues, Logs, Pod, RequestError, RestartPolicy, Role, requests,
    resources,
};
use ah_policy::{DocumentError, GuestSettings, InitData, KeyService, SETTINGS_KEY};
use serde_json::Value;

use crate::agent::Agent;
use crate::data::{self, ContainerData, PolicyData, SANDBOX, SandboxData};
use crate::{dry_run, kata, template, trees, write};

/// The rules that decide, the same for every pod, by subject. Those of the agent come behind them.
const RULES: [&str; 8] = [
    include_str!("rules/head.rego"),
    include_str!("rules/values.rego"),
    include_str!("rules/sandbox.rego"),
    include_str!("rules/containers.rego"),
    include_str!("rules/processes.rego"),
    include_str!("rules/files.rego"),
    include_str!("rules/volumes.rego"),
    include_str!("rules/network.rego"),
];

/// The rules that explain denials. Last, and with names of their own, so that the guest compiles them at the first denial only.
const EXPLANATIONS: &str = include_str!("rules/explain.rego");

/// What stands between the rules and the data.
pub(crate) const DATA_MARK: &str = "\npolicy_data := ";

/// Makes the example of a pod's name.
const EXAMPLE_DIGITS: &str = "0123456789abcdef";

/// What the owner decides beside the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the guest finds the key service, and the key by which it knows it.
    pub key_service: Option<KeyService>,
    /// Which agent enforces the policy.
    pub agent: Agent,
}

/// A policy, and the document that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The Rego text.
    pub policy: String,
    /// The initdata document.
    pub initdata: InitData,
}

/// Why there is no policy for a pod.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The pod's requests cannot be built.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A request has no policy input. An own bug.
    #[error("request has no policy input: {0}")]
    Input(#[from] ah_agent_api::InputError),
    /// The policy data has no JSON form. An own bug.
    #[error("policy data cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A value of the host stands only beside others of unknown length.
    #[error(
        "value {placeholder} of the host cannot be told from its surroundings: give it an environment variable of its own"
    )]
    NoPlace {
        /// The placeholder.
        placeholder: String,
    },
    /// A stock Kata agent cannot have it.
    #[error("{what}, which a policy for stock Kata cannot let in: {remedy}")]
    NotOnKata {
        /// What the pod has.
        what: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// Two containers have one name.
    #[error("container name {name:?} occurs twice")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// The policy text does not compile, as when a value is longer than a line may be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The document cannot be made.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The policy denies a request that the pod's life needs. An own bug.
    #[error("dry run: {method} at step {step}: {denial}")]
    DryRun {
        /// Number of the request, from 0.
        step: usize,
        /// Its method.
        method: &'static str,
        /// The denial.
        denial: Box<Denial>,
    },
}

/// Makes the policy for a pod, and checks it by a dry run of every request of the pod's life.
///
/// # Errors
/// [`GenerateError`].
pub fn generate(pod: &Pod, options: &Options) -> Result<Generated, GenerateError> {
    let agent = options.agent;
    let pod = &agent.pod(pod)?;
    requests::check(pod)?;
    let data = policy_data(pod, agent)?;
    let data = serde_json::to_value(data)?;
    let data = match agent {
        Agent::Anchorhold => write::json(&data),
        Agent::Kata => write::rego(&data),
    };
    let policy = format!("{}{DATA_MARK}{data}\n", rules(agent));
    dry_run::run(&policy, agent, pod)?;
    let settings = GuestSettings { key_service: options.key_service.clone() };
    let mut extra = BTreeMap::new();
    if settings != GuestSettings::default() {
        extra.insert(SETTINGS_KEY.to_owned(), settings.to_toml());
    }
    let initdata = InitData::build(&policy, &extra)?;
    Ok(Generated { policy, initdata })
}

/// The rules as they are, without the comments: people read them in the project, the guest does not.
pub(crate) fn rules(agent: Agent) -> String {
    let lines = RULES.into_iter().chain([agent.rules(), EXPLANATIONS]).flat_map(str::lines);
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

fn policy_data(pod: &Pod, agent: Agent) -> Result<PolicyData, GenerateError> {
    let host = HostValues::placeholders(pod);
    let whole = |request| input(pod, agent, request);
    let mut wholes = vec![whole(requests::create_sandbox_container(pod, &host)?)?];
    let mut containers = vec![container_data(None, pod)];
    let mut all_trees = Vec::new();
    let mut names = BTreeSet::new();
    for (index, container) in in_order(pod) {
        if !names.insert(container.name.as_str()) {
            return Err(GenerateError::NameTwice { name: container.name.clone() });
        }
        let whole = whole(requests::create_container(pod, index, &host)?)?;
        let volumes = trees::volumes(pod, index, &whole, &mut all_trees)?;
        wholes.push(whole);
        containers.push(ContainerData { volumes, ..container_data(Some(container), pod) });
    }
    let none = || Value::Object(serde_json::Map::new());
    let mut workloads = wholes.iter().skip(1);
    let first = workloads.next().cloned();
    let common = workloads.fold(first, |common, whole| data::common(&common?, whole));
    let common = common.unwrap_or_else(none);
    for (container, whole) in containers.iter_mut().zip(&wholes) {
        container.read = template::reads(whole)?;
        container.request = match container.name.as_str() {
            SANDBOX => whole.clone(),
            _ => data::without(whole, &common).unwrap_or_else(none),
        };
    }
    if agent == Agent::Kata {
        kata::without_contents(&mut all_trees);
    }
    Ok(PolicyData {
        agent,
        common,
        containers,
        files: requests::free_files(pod).into_iter().collect(),
        logs: pod.logs == Logs::Readable,
        name_pattern: pod.name.pattern(),
        name_example: pod.name.example(EXAMPLE_DIGITS),
        sandbox: sandbox_data(pod, agent, &host)?,
        services: pod.services.clone(),
        trees: all_trees,
    })
}

/// Containers in the order in which an honest kubelet creates them.
pub(crate) fn in_order(pod: &Pod) -> impl Iterator<Item = (usize, &Container)> {
    let with = |main: bool| {
        let all = pod.containers.iter().enumerate();
        all.filter(move |(_, container)| (container.role == Role::Main) == main)
    };
    with(false).chain(with(true))
}

fn input(pod: &Pod, agent: Agent, request: CreateContainerRequest) -> Result<Value, GenerateError> {
    let mut input = agent.request(pod, Request::CreateContainer(request)).to_input()?;
    template::number(&mut input);
    if agent == Agent::Kata {
        kata::normal(&mut input);
    }
    Ok(input)
}

fn container_data(container: Option<&Container>, pod: &Pod) -> ContainerData {
    let Some(container) = container else {
        return ContainerData {
            name: SANDBOX.to_owned(),
            role: "sandbox".to_owned(),
            restart: false,
            stdin: false,
            exec_commands: Vec::new(),
            oom_score_adj: None,
            read: Vec::new(),
            request: Value::Null,
            secrets: Vec::new(),
            volumes: Vec::new(),
        };
    };
    let bounds = resources::oom_score_adj_bounds(pod, container);
    let role = match container.role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::Main => "main",
    };
    ContainerData {
        name: container.name.clone(),
        role: role.to_owned(),
        restart: pod.restart_policy != RestartPolicy::Never || container.role == Role::Sidecar,
        stdin: container.stdin,
        exec_commands: container.execs.clone(),
        oom_score_adj: (bounds.start() != bounds.end()).then(|| [*bounds.start(), *bounds.end()]),
        read: Vec::new(),
        request: Value::Null,
        secrets: secrets(container),
        volumes: Vec::new(),
    }
}

/// Variables that hold something of a Secret.
fn secrets(container: &Container) -> Vec<String> {
    let secret = container.env.iter().filter(|variable| variable.value.is_secret());
    let names: BTreeSet<&str> = secret.map(|variable| variable.name.as_str()).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn sandbox_data(pod: &Pod, agent: Agent, host: &HostValues) -> Result<SandboxData, GenerateError> {
    let dns_from_host = pod.dns.policy == DnsPolicy::FromHost;
    let mut request = requests::create_sandbox(pod, host);
    if dns_from_host {
        request.dns.clear();
    }
    let request = agent.request(pod, Request::CreateSandbox(request)).to_input()?;
    Ok(SandboxData { dns_from_host, read: template::reads(&request)?, request })
}
