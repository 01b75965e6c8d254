//! Every request of a pod's life, decided by the same function as in the guest.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ah_agent_api::Request;
use ah_agent_api::agent::{
    DestroySandboxRequest, GetOOMEventRequest, GuestDetailsRequest, ReadStreamRequest,
    RemoveContainerRequest, SignalProcessRequest, StartContainerRequest, StatsContainerRequest,
    TtyWinResizeRequest, WaitProcessRequest, WriteStreamRequest,
};
use ah_digest::Sha256;
use ah_permit::{Policy, PolicyError, State, decide};
use ah_pod::{HostValues, Logs, Pod, RequestError, Role, WholePod, requests};

use crate::agent::Agent;
use crate::gather::in_order;
use crate::generate::{DATA_MARK, GenerateError, rules};

/// Values of a host that does not exist, for dry runs.
pub fn stand_in_host(pod: &Pod) -> HostValues {
    let sandbox_id = Sha256::of("dry run").to_string();
    let uid = "00000000-0000-4000-8000-000000000000";
    let mut host = HostValues::for_user_network(pod, &sandbox_id, uid, "node");
    let layers = pod.containers.iter().flat_map(|container| &container.image.layers);
    for (number, layer) in layers.enumerate() {
        let path = format!("{:02x}/{:02x}", number / 32 % 256, number % 32);
        host.pci_paths.entry(layer.verity.root_hash).or_insert(path);
    }
    host
}

/// The requests that an honest host makes for a pod, from the sandbox's creation to its end.
///
/// # Errors
/// [`RequestError`] when the pod contradicts itself or `host` lacks a value.
pub fn honest_requests(pod: &Pod, host: &HostValues) -> Result<Vec<Request>, RequestError> {
    requests_of(pod, host)
}

/// The same as the runtime in front of this agent makes them.
///
/// # Errors
/// As [`honest_requests`], and [`GenerateError::NotOnKata`].
pub fn honest_requests_for(
    agent: Agent,
    pod: &Pod,
    host: &HostValues,
) -> Result<Vec<Request>, GenerateError> {
    let pod = &agent.pod(pod)?;
    let requests = requests_of(pod, host)?.into_iter();
    Ok(requests.map(|request| agent.request(pod, request)).collect())
}

fn requests_of(pod: &Pod, host: &HostValues) -> Result<Vec<Request>, RequestError> {
    let mut all = vec![
        Request::GetGuestDetails(GuestDetailsRequest::default()),
        Request::CreateSandbox(requests::create_sandbox(pod, host)),
        Request::GetOOMEvent(GetOOMEventRequest::default()),
        Request::UpdateInterface(requests::interface("52:54:00:12:34:56")),
        Request::UpdateRoutes(requests::routes()),
    ];
    let files = requests::copy_sandbox_files(pod, host)?;
    all.extend(files.into_iter().map(Request::CopyFile));
    let sandbox = requests::create_sandbox_container(pod, host)?;
    let sandbox_id = sandbox.container_id.clone();
    all.push(Request::CreateContainer(sandbox));
    all.push(start(&sandbox_id));
    for index in 0..pod.containers.len() {
        let files = requests::copy_container_files(pod, index, host)?;
        all.extend(files.into_iter().map(Request::CopyFile));
    }
    let mut ids = BTreeMap::new();
    for (index, container) in in_order(pod) {
        let create = requests::create_container(pod, index, host)?;
        let id = create.container_id.clone();
        all.push(Request::CreateContainer(create));
        all.push(start(&id));
        all.extend(life(pod, index, &id, host)?);
        if container.role == Role::Init {
            all.push(remove(&id));
        } else {
            ids.insert(index, id);
        }
    }
    if pod.whole == WholePod::Awaited {
        for index in ids.keys() {
            all.extend(execs(pod, *index, host)?);
        }
    }
    for id in ids.into_values().chain([sandbox_id]) {
        let container_id = id.clone();
        let exec_id = id.clone();
        let signal =
            SignalProcessRequest { container_id, exec_id, signal: 15, ..Default::default() };
        all.extend([Request::SignalProcess(signal), remove(&id)]);
    }
    all.push(Request::DestroySandbox(DestroySandboxRequest::default()));
    Ok(all)
}

fn start(id: &str) -> Request {
    Request::StartContainer(StartContainerRequest { container_id: id.into(), ..Default::default() })
}

fn remove(id: &str) -> Request {
    Request::RemoveContainer(RemoveContainerRequest {
        container_id: id.into(),
        ..Default::default()
    })
}

/// What happens while a container runs.
fn life(
    pod: &Pod,
    index: usize,
    id: &str,
    host: &HostValues,
) -> Result<Vec<Request>, RequestError> {
    let (container_id, exec_id) = (id.to_owned(), id.to_owned());
    let mut all = vec![Request::StatsContainer(StatsContainerRequest {
        container_id: container_id.clone(),
        ..Default::default()
    })];
    let Some(container) = pod.containers.get(index) else { return Ok(all) };
    if pod.logs == Logs::Readable {
        let read = ReadStreamRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            len: 32 << 10,
            ..Default::default()
        };
        all.extend([Request::ReadStdout(read.clone()), Request::ReadStderr(read)]);
    }
    if container.stdin {
        let write = WriteStreamRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        all.push(Request::WriteStdin(write));
    }
    if container.tty {
        let resize = TtyWinResizeRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            row: 24,
            column: 80,
            ..Default::default()
        };
        all.push(Request::TtyWinResize(resize));
    }
    if pod.whole == WholePod::NotAwaited {
        all.extend(execs(pod, index, host)?);
    }
    all.push(Request::WaitProcess(WaitProcessRequest {
        container_id,
        exec_id,
        ..Default::default()
    }));
    Ok(all)
}

/// The exact commands that the owner lets the host run.
fn execs(pod: &Pod, index: usize, host: &HostValues) -> Result<Vec<Request>, RequestError> {
    let Some(container) = pod.containers.get(index) else { return Ok(Vec::new()) };
    let exec = |(number, args): (usize, &Vec<String>)| {
        let exec_id = format!("exec-{number}");
        requests::exec_process(pod, index, args, &exec_id, host).map(Request::ExecProcess)
    };
    container.execs.iter().enumerate().map(exec).collect()
}

/// The container whose first process has ended when this request is answered: the guest notes it.
pub fn ends(request: &Request) -> Option<&str> {
    match request {
        Request::WaitProcess(wait) if wait.exec_id == wait.container_id => Some(&wait.container_id),
        _ => None,
    }
}

/// Compiles the rules, for a program that waits for something else meanwhile.
pub fn warm_up() {
    let _ = rules_alone(Agent::default());
}

/// The rules are the same for every pod, so they are compiled once; who comes meanwhile waits.
fn rules_alone(agent: Agent) -> Option<&'static Policy> {
    static ANCHORHOLD: OnceLock<Option<Policy>> = OnceLock::new();
    static KATA: OnceLock<Option<Policy>> = OnceLock::new();
    let compiled = match agent {
        Agent::Anchorhold => &ANCHORHOLD,
        Agent::Kata => &KATA,
    };
    let compile = || Policy::compile(&format!("{}{DATA_MARK}{{}}\n", rules(agent))).ok();
    compiled.get_or_init(compile).as_ref()
}

fn compile(text: &str, agent: Agent) -> Result<Policy, PolicyError> {
    match rules_alone(agent) {
        Some(rules) => rules.compile_alike(text),
        None => Policy::compile(text),
    }
}

/// Decides every request in order.
pub(crate) fn run(policy: &str, agent: Agent, pod: &Pod) -> Result<(), GenerateError> {
    let policy = compile(policy, agent)?;
    let mut state = State::new();
    let requests = honest_requests_for(agent, pod, &stand_in_host(pod))?;
    for (step, request) in requests.into_iter().enumerate() {
        let method = request.method();
        let ended = ends(&request).map(str::to_owned);
        let (_, changes) = decide(&policy, &state, request)
            .map_err(|denial| GenerateError::DryRun { step, method, denial: Box::new(denial) })?
            .into_parts();
        // One decision at a time, so no other commit comes in between.
        let _ = state.commit(changes);
        if let Some(id) = ended {
            state.note_exit(&id, 0);
        }
    }
    Ok(())
}
