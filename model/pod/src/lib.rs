//! The requests that an honest containerd and Kata runtime make for a pod: the one derivation that owner and host share.
//!
//! A [`Pod`] is the pod after Kubernetes' defaults, with what its images say. [`requests`] turns it
//! and the host's own facts ([`HostValues`]) into agent requests. The policy generator calls the
//! same functions with [`HostValues::placeholders`] and gets its template, so that the policy and
//! an honest host cannot drift apart: there is no second place that knows how a request looks.
//!
//! Sources: containerd's CRI plugin (1.7) for the OCI spec, the kubelet for what it hands to
//! containerd, the Kata runtime for what it changes before the agent sees it.
#![forbid(unsafe_code)]

mod choices;
mod files;
mod hints;
mod host;
mod image;
mod mounts;
mod name;
mod network;
mod order;
mod pod;
mod process;
pub mod requests;
pub mod resources;
mod seccomp;
pub mod shape;
pub mod signals;
mod size;
mod spec;
mod sysctls;
mod text;
pub mod trees;
pub mod users;
mod volumes;

pub use choices::{Bound, ContainerChoices, OwnerKeys, TerminationLog, WholePod, Word};
pub use hints::{RUNTIME_HINTS_ANNOTATION, RuntimeHints};
pub use host::{DnsFacts, HostValues, placeholder};
pub use image::{Accounts, GroupEntry, ImageFacts, Layer, PasswdEntry};
pub use name::{NamePiece, PodName};
pub use order::{Step, steps};
pub use pod::{
    Container, ContainerSecurity, DnsPolicy, DnsSettings, EnvVar, FsGroup, FsGroupChange,
    HostAlias, Logs, Pod, PodSecurity, Port, Protocol, RestartPolicy, Role, RunAs, Seccomp,
    VolumeMount,
};
pub use requests::RequestError;
pub use resources::{Qos, Resources};
pub use size::{Size, at_once};
pub use sysctls::{SYSCTLS, is_sysctl_value};
pub use text::{HostFact, Part, Text, expand};
pub use volumes::{
    FileBytes, FileContent, FileVolume, Medium, Unpinned, Volume, VolumeFile, VolumeSource,
};
