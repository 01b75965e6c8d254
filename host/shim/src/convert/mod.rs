//! containerd's OCI spec becomes the agent's requests, in the shape that the Kata runtime gives them. Pure.
//!
//! A generated policy holds the requests that `ah_pod` derives from the pod, whole. What containerd writes differs from
//! version to version and from node to node where it means nothing to the guest (specification version, masked paths of
//! older kubelets, order of mount options, the seccomp profile's text, where the node keeps files); here it is brought into
//! the one form. That costs no security: the shim is not trusted, and the policy compares what leaves it.
//!
//! Evidence: `tests/data/` holds what containerd 1.6, 1.7 and 2.1 wrote for pods of a real kubelet.

mod annotations;
mod bundle;
mod copies;
mod mountinfo;
mod mounts;
mod sandbox;
mod workload;

use std::path::PathBuf;

use ah_agent_api::agent::{CreateContainerRequest, ExecProcessRequest};
use ah_agent_api::oci;

pub use annotations::{Hints, HintsError, Kind, kind, pod_uid, sandbox_id};
pub use bundle::{BundleError, Process, Spec, parse, parse_process};
pub use copies::{HostTree, Node, NodeKind, copy_requests};
pub use mountinfo::MountInfo;
pub use mounts::{Copied, CopyKind};
pub use sandbox::{Sandbox, Sizing, alone, sandbox};
pub use workload::{Workload, resources, workload};

/// Why a container of containerd cannot be one of the guest.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A part that every container of containerd has.
    #[error("config.json has no {0}")]
    Missing(&'static str),
    /// A namespace of the node, which a guest cannot have.
    #[error("the pod uses the node's {kind} namespace (host{kind}), which a VM cannot share")]
    HostNamespace {
        /// `Network`, `PID` or `IPC`.
        kind: &'static str,
    },
    /// A file or folder of the node that is neither a volume nor one of the kubelet's files.
    #[error(
        "mount of {destination:?}: found the node's {source_path:?}, expected a volume of the pod: hostPath and the like cannot be in a VM"
    )]
    HostPath {
        /// Where the container would see it.
        destination: String,
        /// What it is on the node.
        source_path: PathBuf,
    },
    /// A mount of a kind that no container runtime interface makes.
    #[error(
        "mount of {destination:?}: found type {kind:?}, expected bind or one of containerd's own"
    )]
    MountType {
        /// Where the container would see it.
        destination: String,
        /// Its type.
        kind: String,
    },
    /// Something that the guest has no counterpart of.
    #[error("{field}: found {found}, which a container in a VM cannot have")]
    Unsupported {
        /// Field of config.json.
        field: &'static str,
        /// Its value, for people.
        found: String,
    },
    /// The pod's hints cannot be read.
    #[error(transparent)]
    Hints(#[from] HintsError),
    /// A layer without a disk.
    #[error(transparent)]
    Request(#[from] ah_pod::RequestError),
}

/// One more process in a container: the container's own with these arguments, as a policy that allows the command has it.
/// What else containerd's process differs in (capabilities, a terminal) follows it.
pub fn exec(
    create: &CreateContainerRequest,
    exec_id: &str,
    process: &Process,
) -> ExecProcessRequest {
    let own = create.OCI.as_ref().and_then(|spec| spec.Process.as_ref());
    let mut wanted: oci::Process = workload::process(process);
    if let Some(own) = own {
        // containerd copies the container's process and leaves these as they were made for the node
        wanted.OOMScoreAdj = own.OOMScoreAdj;
        wanted.Capabilities = own.Capabilities.clone();
        wanted.User = own.User.clone();
        wanted.NoNewPrivileges = own.NoNewPrivileges;
        wanted.Env = own.Env.clone();
    }
    ExecProcessRequest {
        container_id: create.container_id.clone(),
        exec_id: exec_id.into(),
        process: Some(wanted).into(),
        ..Default::default()
    }
}
