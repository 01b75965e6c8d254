//! `anchorhold node …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `anchorhold node …`
#[derive(Debug, Clone, Subcommand)]
pub enum Node {
    /// Put the runtime handlers and the snapshotter into containerd's configuration
    Install(NodeInstall),
    /// Take them out again
    #[command(
        after_help = "A configuration that nobody has changed since becomes, byte for byte, what it was."
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
}

/// `anchorhold node install`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  anchorhold node install --alias kata-cc

May be run again; what was there before is kept beside the file, and `node uninstall` gives it back. What cannot be merged is
refused, and nothing is changed. containerd is to be restarted afterwards.")]
pub struct NodeInstall {
    /// Where containerd is.
    #[command(flatten)]
    pub places: NodePlaces,
    /// Another name of the runtime handler (repeatable), as kata-cc for manifests written for AKS
    #[arg(long, value_name = "HANDLER")]
    pub alias: Vec<String>,
    /// The containerd that will read the configuration [default: what `containerd --version` says]
    #[arg(long, value_name = "VERSION")]
    pub containerd_version: Option<String>,
    /// Print the merged configuration and write nothing
    #[arg(long)]
    pub print: bool,
}
