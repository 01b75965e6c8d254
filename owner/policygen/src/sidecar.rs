//! What a fragment's container may be: one of the pod's, without its program.

use ah_pod::{
    Accounts, Container, ContainerChoices, ContainerSecurity, EnvVar, ImageFacts, Layer, Pod,
    Resources, Role,
};
use ah_verity::VerityInfo;
use serde_json::Value;

use crate::data::ContainerData;

/// Name of the container that stands in for those of fragments: no Kubernetes name has brackets.
pub(crate) const NAME: &str = "(sidecar)";
/// Where a cluster's token is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The pod with such a container behind its own, where the owner lets somebody add some.
pub(crate) fn beside(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if !pod.owner_keys.fragments.is_empty() {
        let sidecar = stand_in(&pod);
        pod.containers.push(sidecar);
    }
    pod
}

/// No volumes but the token that a cluster gives to every container, no keys, nothing that the host may run in it or read of it beside
/// its output.
fn stand_in(pod: &Pod) -> Container {
    let token = |container: &Container| {
        container.mounts.iter().find(|mount| mount.path == TOKEN_PATH).cloned()
    };
    let tokens: Option<Vec<_>> = pod.containers.iter().map(token).collect();
    Container {
        name: NAME.to_owned(),
        role: Role::Main,
        image: image(),
        command: Vec::new(),
        args: Vec::new(),
        env: of_cluster(pod),
        working_dir: None,
        security: ContainerSecurity {
            // what the owner takes from all containers is not given to others
            no_new_privileges: pod.containers.iter().all(|one| one.security.no_new_privileges),
            ..Default::default()
        },
        resources: Resources::default(),
        mounts: tokens.and_then(|tokens| tokens.into_iter().next()).into_iter().collect(),
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".to_owned(),
        execs: Vec::new(),
        release_socket: false,
        choices: ContainerChoices::default(),
    }
}

/// The variables of the cluster's API, which it gives to every container.
fn of_cluster(pod: &Pod) -> Vec<EnvVar> {
    let [first, others @ ..] = pod.containers.as_slice() else { return Vec::new() };
    let everywhere =
        |variable: &&EnvVar| others.iter().all(|container| container.env.contains(variable));
    let of_api = first.env.iter().filter(|variable| variable.name.starts_with("KUBERNETES_"));
    of_api.filter(everywhere).cloned().collect()
}

fn image() -> ImageFacts {
    let nothing = ah_digest::Sha256::of("");
    ImageFacts {
        reference: NAME.to_owned(),
        entrypoint: vec![NAME.to_owned()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: "/".to_owned(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![Layer {
            diff_id: nothing,
            verity: VerityInfo { root_hash: nothing, data_blocks: 1, salt: [0; 32] },
        }],
    }
}

/// Without the path that a container gets whose image has none: a fragment says its own.
pub(crate) fn template(mut container: ContainerData) -> ContainerData {
    for part in [&mut container.request, &mut container.fill] {
        let env = part.pointer_mut("/OCI/Process/Env").and_then(Value::as_array_mut);
        if let Some(env) = env {
            env.retain(|entry| !entry.as_str().is_some_and(|entry| entry.starts_with("PATH=")));
        }
    }
    container
}
