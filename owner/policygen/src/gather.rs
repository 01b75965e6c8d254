//! What the rules know about a pod, gathered from its requests.

use std::collections::{BTreeMap, BTreeSet};

use ah_agent_api::Request;
use ah_agent_api::agent::CreateContainerRequest;
use ah_pod::{
    Container, DnsPolicy, HostValues, Logs, Pod, RestartPolicy, Role, TerminationLog, WholePod,
    Word, requests, resources, signals,
};
use serde_json::Value;

use crate::agent::Agent;
use crate::bounds::{BoundData, WordData};
use crate::data::{self, ContainerData, PolicyData, SANDBOX, SandboxData, TreeData, VariantData};
use crate::generate::GenerateError;
use crate::{kata, platforms, sidecar, template, trees};

/// Makes the example of a pod's name.
const EXAMPLE_DIGITS: &str = "0123456789abcdef";

/// The policy's data for a pod, as its agent's runtime sees it; `others` are the same pod with the images of other platforms.
pub(crate) fn policy_data(
    pod: &Pod,
    others: &[(String, Pod)],
    agent: Agent,
) -> Result<PolicyData, GenerateError> {
    let beside = sidecar::beside(pod);
    let host = HostValues::placeholders(&beside);
    let mut all_trees = Vec::new();
    let sandbox = Draft {
        whole: input(pod, agent, requests::create_sandbox_container(pod, &host)?)?,
        bounds: template::Mutable::new(),
        data: container_data(None, pod)?,
    };
    let mut drafts = vec![sandbox];
    drafts.extend(containers(pod, &beside, agent, &mut all_trees)?);
    let mut names = BTreeSet::new();
    if let Some(twice) = drafts.iter().find(|draft| !names.insert(&draft.data.name)) {
        return Err(GenerateError::NameTwice { name: twice.data.name.clone() });
    }
    let mut variants = Vec::new();
    for (platform, other) in others {
        let drafts = &drafts[1..];
        let found = containers(other, other, agent, &mut all_trees)?;
        platforms::add_differing(&mut variants, drafts, found, platform, agent)?;
    }
    let own = drafts.iter().skip(1).chain(variants.iter().map(|(_, _, draft)| draft));
    let parts: Vec<(Value, Value)> = own.map(|draft| parts(&draft.whole)).collect();
    let common = common_of(parts.iter().map(|(fixed, _)| fixed));
    let common_fill = common_of(parts.iter().map(|(_, fill)| fill));
    let finish = |draft: Draft| draft.finished(&common, &common_fill);
    let mut containers = drafts.into_iter().map(finish).collect::<Result<Vec<_>, _>>()?;
    for (index, platform, draft) in variants {
        let ContainerData { read, request, fill, volumes, .. } = finish(draft)?;
        // The sandbox comes before the pod's containers.
        if let Some(container) = containers.get_mut(index.saturating_add(1)) {
            container.variants.push(VariantData { platform, read, request, fill, volumes });
        }
    }
    // It is one of them for what they have in common, and none that may be created.
    let sidecar = match pod.owner_keys.fragments.is_empty() {
        true => None,
        false => containers.pop().map(sidecar::template).map(Box::new),
    };
    let named = containers.iter().enumerate();
    let places = named.clone().map(|(index, container)| (container.name.clone(), index)).collect();
    let waits =
        named.filter(|(_, container)| matches!(container.role.as_str(), "init" | "sidecar"));
    let waits = waits.map(|(index, _)| index).collect();
    if agent == Agent::Kata {
        kata::without_contents(&mut all_trees);
    }
    Ok(PolicyData {
        agent,
        common,
        common_fill,
        containers,
        places,
        waits,
        debug_key: pod.owner_keys.debug,
        fragments: pod.owner_keys.fragments.clone(),
        sidecar,
        files: requests::free_files(pod).into_iter().collect(),
        logs: pod.logs == Logs::Readable,
        name_pattern: pod.name.pattern(),
        name_example: pod.name.example(EXAMPLE_DIGITS),
        sandbox: sandbox_data(pod, agent, &host)?,
        services: pod.services.clone(),
        trees: all_trees,
        whole: pod.whole == WholePod::Awaited,
    })
}

/// A container on its way into the policy.
pub(crate) struct Draft {
    /// Its whole request, placeholders in place.
    pub(crate) whole: Value,
    bounds: template::Mutable,
    pub(crate) data: ContainerData,
}

impl Draft {
    /// With its request's parts, without what is in the common ones.
    fn finished(
        mut self,
        common: &Value,
        common_fill: &Value,
    ) -> Result<ContainerData, GenerateError> {
        let mut read = template::reads(&self.whole)?;
        for (placeholder, read) in &mut read {
            (read.within, read.example) = self.bounds.remove(placeholder).unzip();
        }
        let (fixed, fill) = parts(&self.whole);
        let (request, fill) = match self.data.name.as_str() {
            SANDBOX | sidecar::NAME => (fixed, fill),
            _ => (rest(&fixed, common), rest(&fill, common_fill)),
        };
        Ok(ContainerData { read, request, fill, ..self.data })
    }
}

/// The containers in their order; `beside` has one more where somebody may add some.
fn containers(
    pod: &Pod,
    beside: &Pod,
    agent: Agent,
    trees: &mut Vec<TreeData>,
) -> Result<Vec<Draft>, GenerateError> {
    let host = HostValues::placeholders(beside);
    let mut drafts = Vec::new();
    for (index, container) in in_order(beside) {
        // What the pod's own are does not depend on whether somebody adds one.
        let pod = if container.name == sidecar::NAME { beside } else { pod };
        let mut whole = input(pod, agent, requests::create_container(pod, index, &host)?)?;
        let bounds = template::mutable(&mut whole, container)?;
        let volumes = trees::volumes(pod, index, &whole, trees)?;
        let data = ContainerData { volumes, ..container_data(Some(container), pod)? };
        drafts.push(Draft { whole, bounds, data });
    }
    Ok(drafts)
}

fn none() -> Value {
    Value::Object(serde_json::Map::new())
}

/// A request's members without placeholders, and those with.
fn parts(whole: &Value) -> (Value, Value) {
    let (fixed, fill) = data::parted(whole, &template::varies);
    (fixed.unwrap_or_else(none), fill.unwrap_or_else(none))
}

/// What all have in common; of one alone, all.
fn common_of<'a>(mut parts: impl Iterator<Item = &'a Value>) -> Value {
    let first = parts.next().cloned();
    parts.fold(first, |common, part| data::common(&common?, part)).unwrap_or_else(none)
}

fn rest(part: &Value, common: &Value) -> Value {
    data::without(part, common).unwrap_or_else(none)
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

fn container_data(
    container: Option<&Container>,
    pod: &Pod,
) -> Result<ContainerData, GenerateError> {
    let Some(container) = container else {
        return Ok(ContainerData {
            name: SANDBOX.to_owned(),
            role: "sandbox".to_owned(),
            restart: false,
            stdin: false,
            exec_commands: Vec::new(),
            exec_patterns: Vec::new(),
            termination_log: None,
            stop_signal: None,
            oom_score_adj: None,
            read: BTreeMap::new(),
            request: Value::Null,
            fill: Value::Null,
            secrets: Vec::new(),
            volumes: Vec::new(),
            variants: Vec::new(),
        });
    };
    let bounds = resources::oom_score_adj_bounds(pod, container);
    let role = match container.role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::Main => "main",
    };
    Ok(ContainerData {
        name: container.name.clone(),
        role: role.to_owned(),
        restart: pod.restart_policy != RestartPolicy::Never || container.role == Role::Sidecar,
        stdin: container.stdin,
        exec_commands: container.execs.clone(),
        exec_patterns: exec_patterns(container)?,
        termination_log: Some(container.termination_message_path.clone())
            .filter(|_| container.choices.termination_log == TerminationLog::Readable),
        stop_signal: stop_signal(container)?.filter(|signal| *signal != signals::TERM),
        oom_score_adj: (bounds.start() != bounds.end()).then(|| [*bounds.start(), *bounds.end()]),
        read: BTreeMap::new(),
        request: Value::Null,
        fill: Value::Null,
        secrets: secrets(container),
        volumes: Vec::new(),
        variants: Vec::new(),
    })
}

/// What containerd stops it with; where the image says what is no signal, it could not stop it at all.
pub(crate) fn stop_signal(container: &Container) -> Result<Option<u32>, GenerateError> {
    let Some(text) = container.image.stop_signal.as_deref() else { return Ok(None) };
    let unknown =
        || GenerateError::StopSignal { container: container.name.clone(), found: text.to_owned() };
    signals::signal_number(text).map(Some).ok_or_else(unknown)
}

fn exec_patterns(container: &Container) -> Result<Vec<Vec<WordData>>, GenerateError> {
    let place = format!("exec of container {:?}", container.name);
    let word = |word: &Word| {
        Ok(match word {
            Word::Exact(word) => WordData::Exact(word.clone()),
            Word::Within(bound) => WordData::Within(BoundData::of(bound, &place)?),
        })
    };
    let commands = container.choices.exec_patterns.iter();
    commands.map(|command| command.iter().map(word).collect()).collect()
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
