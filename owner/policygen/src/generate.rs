//! A pod becomes a policy.

use std::collections::BTreeMap;

use ah_permit::{Denial, PolicyError};
use ah_pod::{Pod, RequestError, Role, WholePod, requests};
use ah_policy::{DocumentError, GuestSettings, InitData, KeyService, SETTINGS_KEY};

use crate::agent::Agent;
use crate::{dry_run, gather, sealed, write};

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

/// The rules of debug sessions; only where the owner wants them.
const DEBUG: &str = include_str!("rules/debug.rego");

/// The rules of images for several platforms; only where a container differs.
const PLATFORMS: &str = include_str!("rules/platforms.rego");

/// What stands between the rules and the data.
pub(crate) const DATA_MARK: &str = "\npolicy_data := ";

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
    /// A bound of the owner's is none.
    #[error("{place}: {detail}")]
    Bound {
        /// What it bounds.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A container waits for keys that are released only after it has ended.
    #[error(
        "init container {container:?} has the release socket, but keys wait for the whole pod, which is created after it"
    )]
    KeysTooLate {
        /// Its name.
        container: String,
    },
    /// A sealed value that the guest would not open.
    #[error("container {container:?}: {detail}")]
    Sealed {
        /// The container's name.
        container: String,
        /// Where it is, and what is wrong.
        detail: String,
    },
    /// Sealed values are opened before the container exists, keys come after all of them do.
    #[error(
        "container {container:?} has sealed values, but keys wait for the whole pod, which is created after it: leave the whole pod unawaited"
    )]
    SealedTooLate {
        /// Its name.
        container: String,
    },
    /// A stock Kata agent cannot have it.
    #[error("{what}, which a policy for stock Kata cannot let in: {remedy}")]
    NotOnKata {
        /// What the pod has.
        what: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// The image's or the pod's stop signal is none.
    #[error(
        "container {container:?}: stop signal {found:?} is not a signal, expected one like SIGQUIT, SIGRTMIN+3 or 3"
    )]
    StopSignal {
        /// The container's name.
        container: String,
        /// What is said.
        found: String,
    },
    /// The images of two platforms differ in what one policy cannot tell apart.
    #[error(
        "container {container:?}: its image for {platform} has {what}: make a policy for each platform"
    )]
    Platforms {
        /// The container's name.
        container: String,
        /// The other platform.
        platform: String,
        /// How the image differs.
        what: String,
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
    generate_for_platforms(pod, &[], options)
}

/// The same for a pod that may be placed on machines of several platforms: `others` names them (`os/architecture`), each with the pod
/// as its images have it.
///
/// # Errors
/// [`GenerateError`].
pub fn generate_for_platforms(
    pod: &Pod,
    others: &[(String, Pod)],
    options: &Options,
) -> Result<Generated, GenerateError> {
    let agent = options.agent;
    let own = |pod: &Pod| {
        let pod = agent.pod(pod)?;
        requests::check(&pod)?;
        check_keys(&pod)?;
        sealed::check(&pod, agent)?;
        Ok::<_, GenerateError>(pod)
    };
    let pod = &own(pod)?;
    let others: Vec<(String, Pod)> = others
        .iter()
        .map(|(platform, pod)| Ok((platform.clone(), own(pod)?)))
        .collect::<Result<_, GenerateError>>()?;
    let data = gather::policy_data(pod, &others, agent)?;
    let platforms = data.containers.iter().any(|container| !container.variants.is_empty());
    let data = serde_json::to_value(data)?;
    let data = match agent {
        Agent::Anchorhold => write::json(&data),
        Agent::Kata => write::rego(&data),
    };
    let rules = rules_with(agent, &optional(pod, platforms));
    let policy = format!("{rules}{DATA_MARK}{data}\n");
    for pod in std::iter::once(pod).chain(others.iter().map(|(_, pod)| pod)) {
        dry_run::run(&policy, agent, pod)?;
    }
    let settings = GuestSettings { key_service: options.key_service.clone() };
    let mut extra = BTreeMap::new();
    if settings != GuestSettings::default() {
        extra.insert(SETTINGS_KEY.to_owned(), settings.to_toml());
    }
    let initdata = InitData::build(&policy, &extra)?;
    Ok(Generated { policy, initdata })
}

/// The rules that a pod has beside those of every pod.
fn optional(pod: &Pod, platforms: bool) -> Vec<&'static str> {
    let debug = pod.owner_keys.debug.map(|_| DEBUG);
    debug.into_iter().chain(platforms.then_some(PLATFORMS)).collect()
}

/// The rules of every pod.
pub(crate) fn rules(agent: Agent) -> String {
    rules_with(agent, &[])
}

/// Every text of rules that this generator writes for an agent.
pub(crate) fn all_rules(agent: Agent) -> [String; 4] {
    [&[][..], &[DEBUG], &[PLATFORMS], &[DEBUG, PLATFORMS]]
        .map(|optional| rules_with(agent, optional))
}

/// The rules as they are, without the comments: people read them in the project, the guest does not.
fn rules_with(agent: Agent, optional: &[&'static str]) -> String {
    let texts = RULES.into_iter().chain([agent.rules()]).chain(optional.iter().copied());
    let lines = texts.chain([EXPLANATIONS]).flat_map(str::lines);
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

/// Keys wait for containers that come after this one's end.
fn check_keys(pod: &Pod) -> Result<(), GenerateError> {
    let waits =
        |container: &&ah_pod::Container| container.release_socket && container.role == Role::Init;
    match pod.containers.iter().find(waits) {
        Some(container) if pod.whole == WholePod::Awaited => {
            Err(GenerateError::KeysTooLate { container: container.name.clone() })
        }
        _ => Ok(()),
    }
}
