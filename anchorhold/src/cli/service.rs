//! `anchorhold keyservice …`, `anchorhold log …`, and what `anchorhold key …` has beside import and list.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Which key service a command speaks to.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// A key service's address, https://host[:port] [default: the local store in DATA/keys]
    #[arg(long, value_name = "URL", env = "ANCHORHOLD_SERVICE")]
    pub service: Option<String>,
    /// Certificates (PEM) that are believed of the service, in the place of the system's
    #[arg(long, value_name = "FILE", env = "ANCHORHOLD_SERVICE_CA", requires = "service")]
    pub ca: Option<PathBuf>,
    /// File with the caller's token
    #[arg(long, value_name = "FILE", env = "ANCHORHOLD_SERVICE_TOKEN_FILE", requires = "service")]
    pub token_file: Option<PathBuf>,
}

/// A key, and which service it is in.
#[derive(Debug, Clone, Args)]
pub struct OneKey {
    /// The key's name
    pub name: String,
    /// Which service.
    #[command(flatten)]
    pub target: Target,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A file, and which service it is about.
#[derive(Debug, Clone, Args)]
pub struct BackupFile {
    /// The backup
    pub file: PathBuf,
    /// Which service.
    #[command(flatten)]
    pub target: Target,
}

/// `anchorhold key restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreFile {
    /// The backup
    pub file: PathBuf,
    /// A service's configuration (TOML): into its database, under its key-encryption key [default: the local store in DATA/keys]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which service.
    #[command(flatten)]
    pub target: Target,
}

/// `anchorhold keyservice …`
#[derive(Debug, Subcommand)]
pub enum KeyServiceCommand {
    /// Serve keys over HTTPS: the vault's routes, our own, and the decision log
    Serve(Serve),
}

/// `anchorhold keyservice serve`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold keyservice serve                                  # on loopback, keys in DATA/keys
  anchorhold keyservice serve --config /etc/anchorhold/keyservice.toml

On first use a certificate authority, a certificate and a caller's token are made; their files are said. SIGTERM and SIGINT
end the service when open requests are answered. docs/keyservice.md has every key of the configuration.")]
pub struct Serve {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port, in the place of the configuration's
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder for what is made on first use, in the place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Accept this root of a software TEE (DER): its reports prove nothing about hardware
    #[arg(long, value_name = "FILE")]
    pub danger_software_root: Option<PathBuf>,
}

/// `anchorhold log …`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show decisions: releases, refusals, changes of keys
    #[command(after_help = "Examples:
  anchorhold log show
  anchorhold log show --from 100 --json --service https://keys.example --token-file token")]
    Show {
        /// Number of the first entry
        #[arg(long, default_value_t = 0, value_name = "NUMBER")]
        from: u64,
        /// Which service.
        #[command(flatten)]
        target: Target,
        /// Print each entry as it is stored
        #[arg(long)]
        json: bool,
    },
    /// Prove that nothing of the log was changed or dropped
    #[command(after_help = "Examples:
  anchorhold log verify --pin head.json      # the first time writes the file, later times compare with it
  anchorhold log verify --pin head.json --service https://keys.example --token-file token

The exit code is 0 when the log is whole, 1 when it is not, 2 when it cannot be read. Keep the file where the service's operator
cannot write: it is what a rewritten log is found by.")]
    Verify {
        /// The head that the log had when it was verified last; made when it is not there, renewed when the log is whole
        #[arg(long, value_name = "FILE")]
        pin: Option<PathBuf>,
        /// Which service.
        #[command(flatten)]
        target: Target,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
