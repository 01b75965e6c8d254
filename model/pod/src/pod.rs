//! The pod after Kubernetes' defaults: what the owner decided, with nothing left to the host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ContainerChoices, HostFact, HostValues, ImageFacts, OwnerKeys, PodName, Resources, Text,
    Volume, WholePod,
};

/// A pod. Field names follow the Kubernetes API where it has the field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// The pod's name, or who chooses it.
    pub name: PodName,
    /// `metadata.namespace`; `None` leaves it to whoever applies the manifest.
    pub namespace: Option<String>,
    /// `spec.hostname`; `None` is the pod's name.
    pub hostname: Option<String>,
    /// `spec.subdomain`.
    pub subdomain: Option<String>,
    /// `spec.hostAliases`.
    pub host_aliases: Vec<HostAlias>,
    /// `spec.dnsPolicy` and `spec.dnsConfig`.
    pub dns: DnsSettings,
    /// `spec.securityContext`.
    pub security: PodSecurity,
    /// `spec.shareProcessNamespace`.
    pub share_process_namespace: bool,
    /// `spec.volumes`.
    pub volumes: Vec<Volume>,
    /// Services whose addresses are in the containers' environment, `namespace/name`.
    pub services: Vec<String>,
    /// Init containers in their order, then the others in theirs.
    pub containers: Vec<Container>,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`.
    pub termination_grace_seconds: u64,
    /// Whether the host may read what the containers print.
    pub logs: Logs,
    /// What keys and execs wait for.
    #[serde(default)]
    pub whole: WholePod,
    /// Whose statements its guest believes beside the policy.
    #[serde(default)]
    pub owner_keys: OwnerKeys,
}

/// `spec.hostAliases[*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Names of that address.
    pub hostnames: Vec<String>,
}

/// Where the pod's `/etc/resolv.conf` comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSettings {
    /// `spec.dnsPolicy`.
    pub policy: DnsPolicy,
    /// `spec.dnsConfig.nameservers`.
    pub nameservers: Vec<String>,
    /// `spec.dnsConfig.searches`.
    pub searches: Vec<String>,
    /// `spec.dnsConfig.options`, each `name` or `name:value`.
    pub options: Vec<String>,
}

/// `spec.dnsPolicy`, as far as it decides who gives the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsPolicy {
    /// The cluster or the node (`ClusterFirst`, `ClusterFirstWithHostNet`, `Default`).
    #[default]
    FromHost,
    /// Only `spec.dnsConfig` (`None`).
    OnlyConfig,
}

/// `spec.securityContext` of the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSecurity {
    /// `runAsUser` and `runAsGroup`: the sandbox container's, and the containers' default.
    pub run_as: RunAs,
    /// `fsGroup`.
    pub fs_group: Option<FsGroup>,
    /// `supplementalGroups`.
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: memberships in the image's `/etc/group` do not count.
    pub ignore_image_groups: bool,
    /// `sysctls`.
    pub sysctls: BTreeMap<String, String>,
}

/// `fsGroup` with `fsGroupChangePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsGroup {
    /// Group that owns the volumes.
    pub gid: u32,
    /// When the ownership is changed.
    pub change: FsGroupChange,
}

/// `fsGroupChangePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FsGroupChange {
    /// At each mount.
    Always,
    /// When the volume's root has another owner.
    OnRootMismatch,
}

/// Numeric identity asked for; `None` leaves it to the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunAs {
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After a failure.
    OnFailure,
    /// Not at all.
    Never,
}

/// Whether output leaves the guest (annotation `anchorhold.dev/logs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logs {
    /// The host may read stdout and stderr.
    Readable,
    /// The host may not.
    Closed,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Name, unique in the pod.
    pub name: String,
    /// When it runs.
    pub role: Role,
    /// Its image.
    pub image: ImageFacts,
    /// `command`; empty leaves it to the image.
    pub command: Vec<Text>,
    /// `args`; empty leaves it to the image unless `command` is given.
    pub args: Vec<Text>,
    /// `env` and `envFrom` after expansion, names unique.
    pub env: Vec<EnvVar>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `securityContext`, the pod's put in where it is the default.
    pub security: ContainerSecurity,
    /// `resources`.
    pub resources: Resources,
    /// `volumeMounts`.
    pub mounts: Vec<VolumeMount>,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `tty`.
    pub tty: bool,
    /// `stdin`.
    pub stdin: bool,
    /// `stdinOnce`.
    pub stdin_once: bool,
    /// `terminationMessagePath`.
    pub termination_message_path: String,
    /// Commands that the host may have run in the container, each an exact argument list.
    pub execs: Vec<Vec<String>>,
    /// Whether the guest's release socket is mounted (annotation `anchorhold.dev/release-socket`).
    pub release_socket: bool,
    /// What else the owner lets the host do.
    #[serde(default)]
    pub choices: ContainerChoices,
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Before the next one, to its end with exit code 0.
    Init,
    /// An init container with `restartPolicy: Always`: started before the next one, then kept.
    Sidecar,
    /// With the others.
    Main,
}

/// An environment variable of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value after `$(NAME)` expansion.
    pub value: Text,
}

/// `securityContext` of a container after the pod's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSecurity {
    /// `runAsUser` and `runAsGroup`.
    pub run_as: RunAs,
    /// `runAsNonRoot`.
    pub must_not_be_root: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `allowPrivilegeEscalation` is false.
    pub no_new_privileges: bool,
    /// `capabilities.add`, without `CAP_`.
    pub capabilities_add: Vec<String>,
    /// `capabilities.drop`, without `CAP_`.
    pub capabilities_drop: Vec<String>,
    /// `seccompProfile`.
    pub seccomp: Seccomp,
}

/// `seccompProfile`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// No filter: Kubernetes' default.
    #[default]
    Unconfined,
    /// The project's statement of the runtime's default filter.
    RuntimeDefault,
}

/// `volumeMounts[*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// Name of a [`Volume`].
    pub volume: String,
    /// `mountPath`, absolute.
    pub path: String,
    /// `readOnly`.
    pub read_only: bool,
    /// `subPath`: this part of the volume alone; relative, without empty parts, `.` and `..`.
    pub sub_path: Option<String>,
}

/// `ports[*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// `containerPort`.
    pub container_port: u16,
    /// `hostPort`: forwarded from the machine that runs the guest.
    pub host_port: Option<u16>,
    /// `hostIP`.
    pub host_ip: Option<String>,
    /// `protocol`.
    pub protocol: Protocol,
}

/// `ports[*].protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: the guest loads it for pods that say so.
    Sctp,
}

impl Pod {
    /// Whether a container says that it speaks SCTP.
    pub fn speaks_sctp(&self) -> bool {
        let mut ports = self.containers.iter().flat_map(|container| &container.ports);
        ports.any(|port| port.protocol == Protocol::Sctp)
    }

    /// The pod's name as a text: fixed, or with the host's part at its place.
    pub fn name(&self) -> Text {
        self.name.text()
    }

    /// The pod's namespace as a text.
    pub fn namespace(&self) -> Text {
        match &self.namespace {
            Some(namespace) => namespace.as_str().into(),
            None => Text::host(HostFact::PodNamespace),
        }
    }

    /// The pod's host name: `spec.hostname`, else its name cut to 63 characters as the kubelet does.
    /// A controller that numbers its pods sets it: for a StatefulSet to the pod's name, for an
    /// Indexed Job to the Job's name and the index.
    pub fn hostname(&self, host: &HostValues) -> String {
        match (&self.name, &self.hostname) {
            (PodName::Ordinal { .. }, _) => self.name().render(host),
            (PodName::Indexed { job, .. }, _) => {
                format!("{job}-{}", host.fact(HostFact::PodIndex))
            }
            (_, Some(hostname)) => hostname.clone(),
            (_, None) => {
                let name: String = self.name().render(host).chars().take(63).collect();
                name.trim_end_matches(['-', '.']).to_owned()
            }
        }
    }

    /// The user that a projected token belongs to: the one that all containers run as, where the manifest says one (kubelet,
    /// `FsUserFrom`).
    pub(crate) fn token_user(&self) -> Option<u32> {
        let mut users = self.containers.iter().map(|container| container.security.run_as.user);
        let first = users.next().flatten()?;
        users.all(|user| user == Some(first)).then_some(first)
    }

    /// The container of this name and its index.
    pub fn container(&self, name: &str) -> Option<(usize, &Container)> {
        self.containers.iter().enumerate().find(|(_, container)| container.name == name)
    }
}
