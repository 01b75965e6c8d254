//! What a sandbox is started from.

use std::{
    collections::BTreeMap, net::Ipv4Addr, os::unix::net::UnixStream, path::PathBuf, sync::Arc,
    time::Duration,
};

use ah_agent_client::Tamper;
use ah_digest::Sha256;
use ah_pod::Pod;
use ah_verity::VerityInfo;
use ah_vmm::{
    Accelerator, Disk, HostForward, Network, Protocol, TeeLaunch, Tools, VmSpec, VsockBackend,
};

use crate::{SandboxError, ScratchConfig};

/// Serial of the initdata disk.
pub(crate) const INITDATA_SERIAL: &str = "initdata";
/// A layer's serial is this many hexadecimal digits of its root hash (virtio-blk takes 20 characters).
const LAYER_SERIAL_DIGITS: usize = 20;

/// Everything that [`crate::start`] needs.
pub struct SandboxConfig {
    /// The pod after Kubernetes' defaults.
    pub pod: Pod,
    /// The initdata disk byte for byte (`ah_policy::InitData::to_disk`); opaque to the host. `None` gives the
    /// guest no such disk.
    pub initdata_disk: Option<Vec<u8>>,
    /// The policy text of a pod without initdata (the AKS form), sent before any other request.
    pub policy_text: Option<String>,
    /// Fragments of the policy, sent behind it; opaque to the host.
    pub fragments: Vec<String>,
    /// What boots.
    pub guest: GuestFiles,
    /// A block image for each layer of the pod's images, in any order, each root hash once.
    pub layers: Vec<LayerImage>,
    /// Services of the host that the guest reaches over vsock at CID 2.
    pub services: Vec<VsockService>,
    /// Programs that the VM is made of.
    pub tools: Tools,
    /// Who executes guest instructions.
    pub accelerator: Accelerator,
    /// What keeps the host out of the guest's memory.
    pub tee: TeeLaunch,
    /// Number of virtual CPUs; part of the launch measurement.
    pub vcpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// The disk for what containers write; `None` leaves it in the guest's memory.
    pub scratch: Option<ScratchConfig>,
    /// Whether the pod has a network.
    pub network: NetworkMode,
    /// Longest time from the VM's start to the agent's first answer.
    pub boot_limit: Duration,
    /// The hostile host of the attack tests: alters requests on their way to the agent.
    pub tamper: Option<Arc<dyn Tamper>>,
}

/// The measured part of a guest.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// Linux kernel.
    pub kernel: PathBuf,
    /// Initial file system with init and agent.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Firmware image.
    pub firmware: PathBuf,
}

/// One layer as a block image.
#[derive(Clone, Debug)]
pub struct LayerImage {
    /// EROFS, superblock and hash tree in one file.
    pub path: PathBuf,
    /// What the pod's images say about it.
    pub verity: VerityInfo,
}

/// A service of the host on a vsock port.
#[derive(Clone)]
pub struct VsockService {
    /// Port at CID 2.
    pub port: u32,
    /// Serves one connection; called on a thread where it may block.
    pub handler: Arc<dyn Fn(UnixStream) + Send + Sync>,
}

impl VsockService {
    /// A service from a closure.
    pub fn new(port: u32, handler: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        Self { port, handler: Arc::new(handler) }
    }
}

/// The pod's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// No network card. A `hostPort` is then refused.
    None,
    /// QEMU's user-mode network, with a forward for each `hostPort`.
    #[default]
    User,
}

impl SandboxConfig {
    pub(crate) fn vm_spec(
        &self,
        initdata: Option<PathBuf>,
        scratch: Option<Disk>,
    ) -> Result<VmSpec, SandboxError> {
        let initdata = initdata.map(|path| Disk::read_only(path, INITDATA_SERIAL));
        let layers =
            self.layers.iter().map(|layer| Disk::read_only(&layer.path, layer_serial(layer)));
        Ok(VmSpec {
            kernel: Some(self.guest.kernel.clone()),
            initrd: Some(self.guest.initrd.clone()),
            firmware: self.guest.firmware.clone(),
            cmdline: self.guest.cmdline.clone(),
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disks: initdata.into_iter().chain(layers).chain(scratch).collect(),
            bridges: 0,
            network: network(&self.pod, self.network)?,
            vsock: VsockBackend::Auto,
            tee: self.tee.clone(),
            accelerator: self.accelerator,
        })
    }

    /// Root hash to Kata PCI path, for the requests.
    pub(crate) fn pci_paths(&self, spec: &VmSpec) -> BTreeMap<Sha256, String> {
        let path = |layer: &LayerImage| {
            let path = spec.disk_pci_path(&layer_serial(layer))?;
            Some((layer.verity.root_hash, path.to_string()))
        };
        self.layers.iter().filter_map(path).collect()
    }
}

pub(crate) fn layer_serial(layer: &LayerImage) -> String {
    layer.verity.root_hash.to_string().chars().take(LAYER_SERIAL_DIGITS).collect()
}

fn network(pod: &Pod, mode: NetworkMode) -> Result<Network, SandboxError> {
    let mut forwards = Vec::new();
    for port in pod.containers.iter().flat_map(|container| &container.ports) {
        let Some(host_port) = port.host_port else { continue };
        forwards.push(HostForward {
            protocol: match port.protocol {
                ah_pod::Protocol::Tcp => Protocol::Tcp,
                ah_pod::Protocol::Udp => Protocol::Udp,
                ah_pod::Protocol::Sctp => {
                    return Err(SandboxError::Config {
                        detail: format!(
                            "hostPort {host_port} with the protocol SCTP: without a cluster only TCP and UDP are forwarded"
                        ),
                    });
                }
            },
            host_address: host_address(port.host_ip.as_deref())?,
            host_port,
            guest_port: port.container_port,
        });
    }
    match (mode, forwards.is_empty()) {
        (NetworkMode::User, _) => Ok(Network::User { forwards }),
        (NetworkMode::None, true) => Ok(Network::None),
        (NetworkMode::None, false) => Err(SandboxError::Config {
            detail: "the pod has a hostPort, but its sandbox has no network".into(),
        }),
    }
}

/// Kubernetes: without `hostIP` the port is open on every address of the node.
fn host_address(host_ip: Option<&str>) -> Result<Ipv4Addr, SandboxError> {
    match host_ip {
        None | Some("") => Ok(Ipv4Addr::UNSPECIFIED),
        Some(text) => text.parse().map_err(|_| SandboxError::Config {
            detail: format!("hostIP: found {text:?}, expected an IPv4 address"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host_ip: Option<&str>, expect: Option<Ipv4Addr>) {
        assert_eq!(host_address(host_ip).ok(), expect);
    }

    #[test]
    fn host_addresses() {
        check(None, Some(Ipv4Addr::UNSPECIFIED));
        check(Some("127.0.0.1"), Some(Ipv4Addr::LOCALHOST));
        check(Some("::1"), None);
        check(Some("127.0.0.1-:22,hostfwd=tcp::1"), None);
    }
}
