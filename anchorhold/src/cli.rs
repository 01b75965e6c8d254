//! The words people type.

mod collateral;
mod debug;
pub mod fragment;
mod key_import;
mod key_serve;
mod node;
pub mod policy;
mod secret;
pub mod service;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use ah_registry::Platform;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use collateral::CollateralCommand;
pub use debug::{Debug, Grant as DebugGrantOptions};
pub use key_import::{ImportFile, KeyImport, Kty};
pub use key_serve::{KeyServe, Listen};
pub use node::{Alias, Node, NodeInstall, NodePlaces, NodeTee};
pub use policy::Policy;
pub use secret::{Seal, SecretCommand};
use service::{BackupFile, KeyServiceCommand, LogCommand, OneKey, RestoreFile, Target};
pub use verify::{
    Chain, Expected, Verify, VerifyEvidence, VerifyQuote, VerifyReport, VerifyToken, VerifyWhat,
};

/// Runs containers in virtual machines whose memory the host cannot read.
#[derive(Debug, Parser)]
#[command(name = "anchorhold", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Where keys, the guest image and the software TEE's root are kept [default: the user's data folder]
    #[arg(long, global = true, env = "ANCHORHOLD_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where converted layers are cached [default: the user's cache folder]
    #[arg(long, global = true, env = "ANCHORHOLD_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Say more on standard error (repeat for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  anchorhold run -f pod.yaml --images ./images --tee software
  anchorhold policy generate -f pod.yaml --images ./images -o out.yaml
  anchorhold policy show out.yaml
  anchorhold key import demo/message --for out.yaml --generate
  anchorhold verify evidence evidence.json --policy out.yaml";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pod in a confidential VM on this machine, no cluster needed
    Run(Run),
    /// Generate, show, explain, test, compare and verify policies
    #[command(subcommand)]
    Policy(Policy),
    /// `policy generate` with the options of genpolicy and `az confcom katapolicygen`
    #[command(disable_help_flag = true)]
    Genpolicy {
        /// See `anchorhold genpolicy --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        options: Vec<OsString>,
    },
    /// Build and measure the guest image
    #[command(subcommand)]
    Guest(Guest),
    /// Keys in the local key service, or in one elsewhere
    #[command(subcommand)]
    Key(Key),
    /// Seal secrets of a pod to a key: the guest opens them, nobody else
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Debug sessions in running pods, granted by their owner's key
    #[command(subcommand)]
    Debug(Debug),
    /// Say what a report, quote or token proves, claim by claim
    Verify(Box<Verify>),
    /// Certificates and revocation lists for `verify`, kept in a folder
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// Run the key service
    #[command(subcommand, name = "keyservice")]
    KeyService(KeyServiceCommand),
    /// The key service's decision log: every release, refusal and change
    #[command(subcommand)]
    Log(LogCommand),
    /// Make this machine a Kubernetes node for confidential pods
    #[command(subcommand)]
    Node(Node),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  anchorhold completions bash > ~/.local/share/bash-completion/completions/anchorhold")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where a pod and its images come from.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// Kubernetes YAML with one Pod or Deployment; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: PathBuf,
    /// Its images.
    #[command(flatten)]
    pub images: Images,
}

/// Where images come from.
#[derive(Debug, Clone, Default, Args)]
pub struct Images {
    /// OCI layout folder or oci-archive that is asked before a registry (repeatable)
    #[arg(long, value_name = "DIR|ARCHIVE")]
    pub images: Vec<PathBuf>,
    /// Socket of the containerd on this machine, whose images are asked before a registry
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// Which of its namespaces [default: k8s.io]
    #[arg(long, value_name = "NAME", requires = "containerd")]
    pub containerd_namespace: Option<String>,
    /// Registry that is spoken to in plain HTTP (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<String>,
    /// Certificates (PEM) that are believed of registries, besides the system's (repeatable)
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,
    /// Take what images are from this file, and add what is missing; made when it is not there
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Never ask a registry: what is in no layout, lock file or cache is refused
    #[arg(long)]
    pub offline: bool,
    /// Which image of a multi-platform index is taken: linux/amd64 or linux/arm64; a policy may be for both
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',', default_value = "linux/amd64")]
    pub platform: Vec<Platform>,
}

impl Images {
    /// The same for one of several platforms.
    pub fn on(&self, platform: Platform) -> Self {
        Self { platform: vec![platform], ..self.clone() }
    }

    /// The platform whose images count first.
    pub fn first_platform(&self) -> Platform {
        self.platform.first().copied().unwrap_or_default()
    }
}

/// What plays or is the CPU's security processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tee {
    /// Real hardware if it is there, else stop and say so
    Auto,
    /// AMD SEV-SNP
    Snp,
    /// Intel TDX
    Tdx,
    /// The same run without confidentiality: a process of the host signs the reports
    Software,
}

/// `anchorhold run`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  anchorhold run -f examples/sealed-message/pod.yaml --images target/demo/images --tee software --danger-accept-software-tee

The exit code is the pod's.")]
pub struct Run {
    /// The pod.
    #[command(flatten)]
    pub source: Source,
    /// The trusted execution environment
    #[arg(long, value_enum, default_value_t = Tee::Auto)]
    pub tee: Tee,
    /// Let the embedded key service accept the software TEE's root: keys are released to a VM that the host can read
    #[arg(long)]
    pub danger_accept_software_tee: bool,
    /// The guest image [default: DATA/guest]
    #[arg(long, env = "ANCHORHOLD_GUEST", value_name = "DIR")]
    pub guest: Option<PathBuf>,
    /// Print one JSON object a line on standard error for each stage, and at the end
    #[arg(long)]
    pub json: bool,
    /// Print how long each stage took
    #[arg(long)]
    pub stages: bool,
}

/// `anchorhold guest …`
#[derive(Debug, Subcommand)]
pub enum Guest {
    /// Build the guest image from a Debian kernel and the guest's static binaries
    Build(GuestBuild),
    /// Print the launch measurement that a report of this guest image carries
    #[command(after_help = "Example:
  anchorhold guest measure --guest ./guest --tee snp --vcpus 2 --json
  openssl genpkey -algorithm ed25519 -out key.pem
  anchorhold guest measure --guest ./guest --tee snp --sign key.pem > reference.json

One line for each firmware that guests are started with: that of `anchorhold run` first, then that of a Kubernetes node's shim.")]
    Measure {
        /// The guest image [default: DATA/guest]
        #[arg(long, env = "ANCHORHOLD_GUEST", value_name = "DIR")]
        guest: Option<PathBuf>,
        /// Virtual CPUs of the VM
        #[arg(long, default_value_t = 1)]
        vcpus: u32,
        /// The trusted execution environment
        #[arg(long, value_enum, default_value_t = Tee::Software)]
        tee: Tee,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print signed reference values instead, for `verify --reference`, by this Ed25519 key (PKCS#8, PEM)
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        /// How long the signed values hold [default: for ever]
        #[arg(long, value_name = "DAYS", requires = "sign")]
        valid_days: Option<u32>,
    },
}

/// `anchorhold guest build`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold guest build --init ./anchorhold-init --agent ./anchorhold-agent --out ./guest")]
pub struct GuestBuild {
    /// The static anchorhold-init
    #[arg(long, value_name = "FILE")]
    pub init: PathBuf,
    /// The static anchorhold-agent
    #[arg(long, value_name = "FILE")]
    pub agent: PathBuf,
    /// `debian`, or a kernel image file with its modules built in
    #[arg(long, default_value = "debian", value_name = "debian|FILE")]
    pub kernel: String,
    /// Where the image goes [default: DATA/guest]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where downloaded kernel packages are kept [default: CACHE/kernel]
    #[arg(long, value_name = "DIR")]
    pub kernel_cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold key …`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Import a key under a release policy derived from a pod, or as a file of the known key importer says
    Import(Box<KeyImport>),
    /// Answer the guests of a node: their requests for keys come sealed, over a unix socket or TCP
    Serve(KeyServe),
    /// List the keys: names, kinds, what a release needs; never their bytes
    #[command(after_help = "Example:
  anchorhold key list --json
  anchorhold key list --service https://keys.example --token-file token")]
    List {
        /// Which service.
        #[command(flatten)]
        target: Target,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Describe a key: kind, version, state, policy; never its bytes
    #[command(after_help = "Example:
  anchorhold key show demo/message --json")]
    Show(OneKey),
    /// Release a key to nobody until it is enabled again
    #[command(after_help = "Example:
  anchorhold key disable demo/message")]
    Disable(OneKey),
    /// Release a disabled key again
    #[command(after_help = "Example:
  anchorhold key enable demo/message")]
    Enable(OneKey),
    /// Give a key a further version of fresh bytes, under the same policy
    #[command(after_help = "Example:
  anchorhold key rotate demo/message")]
    Rotate(OneKey),
    /// Delete a key with all its versions
    #[command(after_help = "Example:
  anchorhold key delete demo/message")]
    Delete(OneKey),
    /// Write all keys, sealed as they are, and the log into a file; the service may run meanwhile
    #[command(after_help = "Example:
  anchorhold key backup keys.backup

The key-encryption key is not in it: keep that elsewhere.")]
    Backup(BackupFile),
    /// Fill an empty local store from a backup, and check every key and the log
    #[command(after_help = "Example:
  install -m 600 -D kept/key-encryption-key DATA/keys/key-encryption-key
  anchorhold key restore keys.backup
  anchorhold key restore keys.backup --config /etc/anchorhold/keyservice.toml   # key-encryption key in a token")]
    Restore(RestoreFile),
}
