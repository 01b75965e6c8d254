//! What the host knows and the owner does not, or stands for it in a policy's template.

use std::collections::BTreeMap;

use ah_digest::Sha256;
use serde::{Deserialize, Serialize};

use crate::{HostFact, Pod};

/// Placeholders of the policy template, named as the agent policy convention names them
/// (agent policy reference, section 2.2) where it has the name.
///
/// No text of the owner may hold one ([`crate::RequestError::ReservedText`]): it would turn a fixed
/// value into one that the host chooses.
pub mod placeholder {
    /// The sandbox's id, which is also the sandbox container's.
    pub const SANDBOX_ID: &str = "$(sandbox-id)";
    /// The pod's name where a controller chooses it.
    pub const SANDBOX_NAME: &str = "$(sandbox-name)";
    /// The pod's namespace where the manifest does not say it.
    pub const SANDBOX_NAMESPACE: &str = "$(sandbox-namespace)";
    /// The pod's UID.
    pub const POD_UID: &str = "$(pod-uid)";
    /// The pod's number where a controller numbers its pods.
    pub const POD_INDEX: &str = "$(pod-index)";
    /// The node's name.
    pub const NODE_NAME: &str = "$(node-name)";
    /// The pod's address.
    pub const POD_IP: &str = "$(pod-ip)";
    /// The pod's addresses.
    pub const POD_IPS: &str = "$(pod-ips)";
    /// The node's address.
    pub const HOST_IP: &str = "$(host-ip)";
    /// The node's addresses.
    pub const HOST_IPS: &str = "$(host-ips)";
    /// The id of the container that the request is about.
    pub const CONTAINER_ID: &str = "$(bundle-id)";
    /// The 16 hexadecimal digits in the name of a copied file.
    pub const FILE_ID: &str = "$(file-id)";
    /// PCI path of a layer's disk.
    pub const PCI_PATH: &str = "$(pci-path)";
    /// The id of an exec.
    pub const EXEC_ID: &str = "$(exec-id)";
    /// One line of the host's resolver configuration.
    pub const DNS_SERVER: &str = "$(dns-server)";
    /// The folder that holds the present version of a volume's files.
    pub const VOLUME_VERSION: &str = "$(volume-version)";

    /// How placeholders begin that the policy generator makes of these ones: reserved like them.
    pub const RESERVED_STEMS: [&str; 5] =
        ["$(file-id-", "$(pci-path-", "$(cgroups-path)", SERVICE_IP_STEM, MUTABLE_STEM];
    /// How the placeholder of a variable begins that the owner lets the host choose; a number and `)` follow.
    pub const MUTABLE_STEM: &str = "$(mutable-";
    /// How the placeholder of a service's address begins; its index and `)` follow.
    pub const SERVICE_IP_STEM: &str = "$(service-ip-";

    /// How every placeholder begins.
    pub const START: &str = "$(";
    /// Every placeholder.
    pub const ALL: [&str; 16] = [
        SANDBOX_ID,
        SANDBOX_NAME,
        SANDBOX_NAMESPACE,
        POD_UID,
        POD_INDEX,
        NODE_NAME,
        POD_IP,
        POD_IPS,
        HOST_IP,
        HOST_IPS,
        CONTAINER_ID,
        FILE_ID,
        PCI_PATH,
        EXEC_ID,
        DNS_SERVER,
        VOLUME_VERSION,
    ];
}

/// The host's facts for one run of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostValues {
    /// 64 hexadecimal digits.
    pub sandbox_id: String,
    /// The pod's name; used only where a controller names the pod.
    pub pod_name: String,
    /// The pod's namespace; used only where the manifest does not say it.
    pub namespace: String,
    /// The pod's number, decimal; used only where a controller numbers its pods.
    pub pod_index: String,
    /// UUID of the pod.
    pub pod_uid: String,
    /// Name of the node.
    pub node_name: String,
    /// The pod's address.
    pub pod_ip: String,
    /// The pod's addresses, one a family, separated by commas, the one above first.
    pub pod_ips: String,
    /// The node's address.
    pub host_ip: String,
    /// The node's addresses, as the pod's.
    pub host_ips: String,
    /// Cluster addresses of [`Pod::services`].
    pub service_ips: Vec<String>,
    /// Memory of the node, for the OOM score of burstable pods; 0 is unknown.
    pub node_memory_bytes: u64,
    /// Resolver settings of the node or the cluster.
    pub dns: DnsFacts,
    /// Container name to container id (64 hexadecimal digits).
    pub container_ids: BTreeMap<String, String>,
    /// Root hash of a layer to the PCI path of its disk.
    pub pci_paths: BTreeMap<Sha256, String>,
    /// `<container id>/<file base name>`, for a volume of files `<container id>/<mount path>`, to 16 hexadecimal digits.
    pub file_ids: BTreeMap<String, String>,
    /// Folder that holds a volume's files: `..`, a time and a number, as the kubelet names it.
    pub volume_version: String,
}

/// Resolver settings that the host gives to pods whose `dnsPolicy` asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsFacts {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// Any name of the kubelet's form does: nothing reads the time.
const VOLUME_VERSION: &str = "..1970_01_01_00_00_00.1";

fn is_files(pod: &Pod, mount: &crate::VolumeMount) -> bool {
    crate::trees::file_volume(pod, mount).is_some()
}

impl HostValues {
    /// Placeholders for everything that only the host knows about `pod`.
    pub fn placeholders(pod: &Pod) -> Self {
        let mut values = Self {
            sandbox_id: placeholder::SANDBOX_ID.into(),
            pod_name: placeholder::SANDBOX_NAME.into(),
            namespace: placeholder::SANDBOX_NAMESPACE.into(),
            pod_index: placeholder::POD_INDEX.into(),
            pod_uid: placeholder::POD_UID.into(),
            node_name: placeholder::NODE_NAME.into(),
            pod_ip: placeholder::POD_IP.into(),
            pod_ips: placeholder::POD_IPS.into(),
            host_ip: placeholder::HOST_IP.into(),
            host_ips: placeholder::HOST_IPS.into(),
            service_ips: (0..pod.services.len())
                .map(|index| format!("{}{index})", placeholder::SERVICE_IP_STEM))
                .collect(),
            node_memory_bytes: 0,
            dns: DnsFacts {
                nameservers: vec![placeholder::DNS_SERVER.into()],
                ..DnsFacts::default()
            },
            container_ids: BTreeMap::new(),
            pci_paths: BTreeMap::new(),
            file_ids: BTreeMap::new(),
            volume_version: placeholder::VOLUME_VERSION.into(),
        };
        for container in &pod.containers {
            values.container_ids.insert(container.name.clone(), placeholder::CONTAINER_ID.into());
            for layer in &container.image.layers {
                values.pci_paths.insert(layer.verity.root_hash, placeholder::PCI_PATH.into());
            }
        }
        values.fill_file_ids(pod, |_| placeholder::FILE_ID.into());
        values
    }

    /// Values for a run on this machine with QEMU's user-mode network: guest 10.0.2.15, host
    /// 10.0.2.2, resolver 10.0.2.3. Container and file ids are derived from `sandbox_id`, so that
    /// equal sandbox ids give equal requests; the caller then fills in
    /// [`pci_paths`](Self::pci_paths).
    pub fn for_user_network(pod: &Pod, sandbox_id: &str, pod_uid: &str, node_name: &str) -> Self {
        let mut values = Self {
            sandbox_id: sandbox_id.into(),
            pod_name: pod.name.example(sandbox_id),
            namespace: pod.namespace.clone().unwrap_or_else(|| "default".into()),
            pod_index: "0".into(),
            pod_uid: pod_uid.into(),
            node_name: node_name.into(),
            pod_ip: crate::network::GUEST_IP.into(),
            pod_ips: crate::network::GUEST_IP.into(),
            host_ip: crate::network::GATEWAY_IP.into(),
            host_ips: crate::network::GATEWAY_IP.into(),
            // there is no cluster; whoever asks for its services finds the host
            service_ips: vec![crate::network::GATEWAY_IP.into(); pod.services.len()],
            node_memory_bytes: 0,
            dns: DnsFacts {
                nameservers: vec![crate::network::DNS_IP.into()],
                ..DnsFacts::default()
            },
            container_ids: BTreeMap::new(),
            pci_paths: BTreeMap::new(),
            file_ids: BTreeMap::new(),
            volume_version: VOLUME_VERSION.into(),
        };
        for container in &pod.containers {
            let id = Sha256::of(format!("{sandbox_id}/{}", container.name)).to_string();
            values.container_ids.insert(container.name.clone(), id);
        }
        values.fill_file_ids(pod, |key| {
            Sha256::of(format!("file {key}")).to_string().chars().take(16).collect()
        });
        values
    }

    /// The key of a copied file, by its base name, or of a volume of files, by its mount path, in
    /// [`file_ids`](Self::file_ids).
    pub fn file_key(container_id: &str, name: &str) -> String {
        format!("{container_id}/{name}")
    }

    /// The value of a fact.
    pub fn fact(&self, fact: HostFact) -> &str {
        match fact {
            HostFact::PodName => &self.pod_name,
            HostFact::PodNamespace => &self.namespace,
            HostFact::PodUid => &self.pod_uid,
            HostFact::PodIndex => &self.pod_index,
            HostFact::PodIp => &self.pod_ip,
            HostFact::PodIps => &self.pod_ips,
            HostFact::HostIp => &self.host_ip,
            HostFact::HostIps => &self.host_ips,
            HostFact::ServiceIp(index) => self.service_ips.get(index).map_or("", String::as_str),
            HostFact::NodeName => &self.node_name,
        }
    }

    fn fill_file_ids(&mut self, pod: &Pod, id: impl Fn(&str) -> String) {
        let sandbox =
            (self.sandbox_id.clone(), crate::files::SANDBOX_FILES.map(String::from).to_vec());
        let containers = pod.containers.iter().filter_map(|container| {
            let id = self.container_ids.get(&container.name)?;
            let volumes = container.mounts.iter().filter(|mount| is_files(pod, mount));
            let volumes = volumes.map(|mount| mount.path.clone());
            let files = crate::files::container_files(container);
            Some((id.clone(), files.into_iter().chain(volumes).collect()))
        });
        let owners: Vec<(String, Vec<String>)> =
            std::iter::once(sandbox).chain(containers).collect();
        for (container_id, names) in owners {
            for name in names {
                let key = Self::file_key(&container_id, &name);
                let value = id(&key);
                self.file_ids.insert(key, value);
            }
        }
    }
}
