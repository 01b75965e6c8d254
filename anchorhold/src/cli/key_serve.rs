//! `anchorhold key serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// `anchorhold key serve`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  anchorhold --data /var/lib/anchorhold key serve --listen unix:/run/anchorhold/keys.sock --danger-accept-software-tee

A node's shim carries its pods' requests here: `key_service` in its configuration says where. Requests and answers are sealed between
guest and key service, so the way between them needs no protection of its own. Ends with SIGTERM or Ctrl-C.")]
pub struct KeyServe {
    /// Where: unix:/PATH, or tcp:ADDRESS:PORT (port 0: one that is free, printed)
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Listen,
    /// Believe the root of the software TEE in the data folder too: keys are released to VMs that their host can read
    #[arg(long)]
    pub danger_accept_software_tee: bool,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Some(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().ok().map(Self::Tcp),
            _ => None,
        };
        parsed.ok_or_else(|| format!("found {text:?}, expected unix:/PATH or tcp:ADDRESS:PORT"))
    }
}
