//! Containers of a pod become a fragment, which other owners' policies may let in.

use ah_grant::{Fragment, FragmentContainer, FragmentError, FragmentSource, OwnerKey, SecretKey};
use ah_pod::{Container, ContainerChoices, Pod, Protocol, Role, signals};
use serde_json::Value;

use crate::agent::Agent;
use crate::data::{ContainerData, PolicyData, SANDBOX, merged};
use crate::gather::{self, stop_signal};
use crate::generate::GenerateError;

/// Why there is no fragment of a pod.
#[derive(Debug, thiserror::Error)]
pub enum FragmentMakeError {
    /// As for a policy.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A container has what no fragment can say.
    #[error("container {container:?}: {what}, which a fragment cannot say")]
    Beyond {
        /// Its name.
        container: String,
        /// What it has.
        what: String,
    },
    /// A value out of its bounds.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
}

/// What the containers of a pod are as a fragment. Of the pod itself nothing is taken: that is the other pod's owner's.
///
/// # Errors
/// [`FragmentMakeError::Beyond`] for init containers, volumes, the release socket, choices, limits and whatever else differs from what a
/// policy gives to such containers.
pub fn make_fragment(pod: &Pod, feed: &str, version: u32) -> Result<Fragment, FragmentMakeError> {
    let mut pod = pod.clone();
    pod.owner_keys.fragments = vec![any_source()];
    pod.containers.iter().try_for_each(check)?;
    let data = gather::policy_data(&pod, &[], Agent::Anchorhold)?;
    let json = |err| FragmentMakeError::Generate(GenerateError::Json(err));
    let sidecar = serde_json::to_value(&data.sidecar).map_err(json)?;
    let own = data.containers.iter().filter(|container| container.name != SANDBOX);
    let containers = own.map(|container| one(&data, container, &sidecar));
    let containers = containers.collect::<Result<_, _>>()?;
    Ok(Fragment { feed: feed.to_owned(), version, containers })
}

/// Only that there is one makes the data have a place for it.
fn any_source() -> FragmentSource {
    let key: OwnerKey = SecretKey::from_seed(&[0; 32]).public();
    FragmentSource { issuer: "any".to_owned(), key, feed: "any".to_owned(), min_version: 0 }
}

fn check(container: &Container) -> Result<(), FragmentMakeError> {
    let what = match container {
        one if one.role != Role::Main => "it is an init container",
        one if one.release_socket => "it has the release socket",
        one if one.stdin => "it has stdin",
        // what the node has to know comes in the pod's own annotation
        one if one.resources.root_limit_bytes().is_some() => "it has a limit for ephemeral-storage",
        one if one.ports.iter().any(|port| port.protocol == Protocol::Sctp) => "it speaks SCTP",
        one if stop_signal(one)?.is_some_and(|signal| signal != signals::TERM) => {
            "it has a stop signal of its own"
        }
        one if !one.execs.is_empty() || one.choices != ContainerChoices::default() => {
            "the host is to run commands in it, to choose or to read something"
        }
        _ => return Ok(()),
    };
    Err(FragmentMakeError::Beyond { container: container.name.clone(), what: what.to_owned() })
}

fn one(
    data: &PolicyData,
    container: &ContainerData,
    sidecar: &Value,
) -> Result<FragmentContainer, FragmentMakeError> {
    let request = data.request(container);
    let own = said(&request, container, sidecar);
    let beyond = |what: String| FragmentMakeError::Beyond { container: own.name.clone(), what };
    // By the function with which the guest puts it together.
    let composed = ah_permit::compose(sidecar, &own).map_err(|err| beyond(err.to_string()))?;
    let part = |name: &str| composed.get(name).cloned().unwrap_or_default();
    let whole = merged(&part("request"), &part("fill"));
    match difference(&sorted(whole), &sorted(request), String::new()) {
        Some(field) => {
            Err(beyond(format!("{field} is not as a policy gives it to such containers")))
        }
        None => Ok(own),
    }
}

/// What a fragment says of a request.
fn said(request: &Value, container: &ContainerData, sidecar: &Value) -> FragmentContainer {
    let at = |pointer: &str| request.pointer(pointer).cloned().unwrap_or_default();
    let texts = |pointer: &str| crate::show::texts(request.pointer(pointer));
    let given = ["request", "fill"]
        .into_iter()
        .filter_map(|part| sidecar.get(part)?.pointer("/OCI/Process/Env")?.as_array().cloned());
    let given: Vec<Value> = given.flatten().collect();
    let mut env = texts("/OCI/Process/Env");
    env.retain(|entry| !given.contains(&Value::from(entry.as_str())));
    let disks = container.read.iter().filter(|(name, _)| name.starts_with("$(pci-path-"));
    let disks =
        disks.filter_map(|(name, read)| Some((name.clone(), serde_json::to_value(read).ok()?)));
    FragmentContainer {
        name: container.name.clone(),
        image: crate::show::text(request.pointer("/OCI/Annotations/io.kubernetes.cri.image-name")),
        args: texts("/OCI/Process/Args"),
        env,
        cwd: crate::show::text(request.pointer("/OCI/Process/Cwd")),
        user: at("/OCI/Process/User"),
        capabilities: at("/OCI/Process/Capabilities"),
        no_new_privileges: at("/OCI/Process/NoNewPrivileges") == Value::Bool(true),
        read_only_root: at("/OCI/Root/Readonly") == Value::Bool(true),
        storages: at("/storages").as_array().cloned().unwrap_or_default(),
        read: disks.collect(),
    }
}

/// The order of variables says nothing.
fn sorted(mut request: Value) -> Value {
    let env = request.pointer_mut("/OCI/Process/Env").and_then(Value::as_array_mut);
    if let Some(env) = env {
        env.sort_by_key(Value::to_string);
    }
    request
}

/// The first place where two values differ.
fn difference(left: &Value, right: &Value, place: String) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys());
            keys.into_iter().find_map(|key| {
                let sides =
                    (left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null));
                difference(sides.0, sides.1, format!("{place}/{key}"))
            })
        }
        (left, right) => (left != right).then_some(place),
    }
}
