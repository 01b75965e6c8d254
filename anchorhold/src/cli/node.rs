//! `anchorhold node …`

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

/// `anchorhold node …`
#[derive(Debug, Clone, Subcommand)]
pub enum Node {
    /// Put the runtime handlers and the snapshotter into containerd's configuration
    Install(NodeInstall),
    /// Take them out again
    #[command(
        after_help = "A configuration that nobody has changed since becomes, byte for byte, what it was; files of our own that somebody has changed stay."
    )]
    Uninstall {
        /// Where containerd is.
        #[command(flatten)]
        places: NodePlaces,
    },
    /// Say what this node can do, and what to do about what it cannot
    #[command(
        after_help = "The exit code is 1 when something is missing that confidential pods need."
    )]
    Doctor {
        /// Where containerd is.
        #[command(flatten)]
        places: NodePlaces,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where containerd and the snapshotter are.
#[derive(Debug, Clone, Args)]
pub struct NodePlaces {
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    pub containerd_config: PathBuf,
    /// containerd's socket
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    pub containerd: PathBuf,
    /// The snapshotter's socket
    #[arg(long, value_name = "SOCKET", default_value = "/run/anchorhold/snapshotter.sock")]
    pub snapshotter: PathBuf,
    /// Folder of our own configuration: a file for each kind of pod, and the snapshotter's
    #[arg(long, value_name = "DIR", default_value = "/etc/anchorhold")]
    pub config_dir: PathBuf,
}

/// Another name of a runtime handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// Whether its pods must bring a policy.
    pub confidential: bool,
}

impl FromStr for Alias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, of) = text.split_once('=').unwrap_or((text, "anchorhold-cc"));
        let confidential = match of {
            "anchorhold-cc" => true,
            "anchorhold" => false,
            _ => return Err(format!("found {of:?}, expected anchorhold-cc or anchorhold")),
        };
        // a RuntimeClass's handler is a DNS label (Kubernetes API, node.k8s.io/v1)
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(plain)
            && !name.starts_with('-')
            && !name.ends_with('-');
        match fits {
            true => Ok(Self { name: name.to_owned(), confidential }),
            false => Err(format!("found {name:?}, expected lower case letters, digits and dashes")),
        }
    }
}

/// What signs the reports of a node's confidential pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeTee {
    /// A program of the node: not confidential
    Software,
    /// AMD SEV-SNP; never tried on hardware
    Snp,
}

impl From<NodeTee> for ah_shim::Tee {
    fn from(tee: NodeTee) -> Self {
        match tee {
            NodeTee::Software => Self::Software,
            NodeTee::Snp => Self::Snp,
        }
    }
}

/// What the snapshotter will take.
fn collector(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match authority.filter(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@'])) {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected http://HOST:PORT of a collector that speaks gRPC without TLS".into()),
    }
}

/// What the shim will read.
fn key_address(text: &str) -> Result<String, String> {
    ah_shim::KeyAddress::try_from(text.to_owned()).map(|_| text.to_owned())
}

/// `anchorhold node install`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  anchorhold node install --alias kata-cc --alias kata-cc-isolation=anchorhold --key-service unix:/run/anchorhold/keys.sock

Handlers: anchorhold-cc for confidential pods, anchorhold for pods that are in a virtual machine and have no policy. May be run again; what was there before is kept beside the file, and `node uninstall` gives it back. What cannot be merged is
refused, and nothing is changed. containerd is to be restarted afterwards.")]
pub struct NodeInstall {
    /// Where containerd is.
    #[command(flatten)]
    pub places: NodePlaces,
    /// Another name of anchorhold-cc, or with =anchorhold of that (repeatable): for manifests written for AKS
    #[arg(long, value_name = "HANDLER[=anchorhold]")]
    pub alias: Vec<Alias>,
    /// The guest image
    #[arg(long, value_name = "DIR", default_value = "/var/lib/anchorhold/guest")]
    pub guest: PathBuf,
    /// Where confidential pods' requests for keys go: unix:/PATH or tcp:HOST:PORT
    #[arg(long, value_name = "ADDRESS", value_parser = key_address)]
    pub key_service: Option<String>,
    /// What signs the reports of confidential pods
    #[arg(long, value_enum, default_value_t = NodeTee::Software)]
    pub tee: NodeTee,
    /// Where spans of traces go: http://HOST:PORT of an OpenTelemetry collector (OTLP over gRPC, without TLS) [default: nowhere]
    #[arg(long, value_name = "URL", value_parser = collector)]
    pub otlp: Option<String>,
    /// The containerd that will read the configuration [default: what `containerd --version` says]
    #[arg(long, value_name = "VERSION")]
    pub containerd_version: Option<String>,
    /// Print the merged configuration and write nothing
    #[arg(long)]
    pub print: bool,
}
