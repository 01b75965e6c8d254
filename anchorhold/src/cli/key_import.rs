//! `anchorhold key import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Tee;
use super::service::Target;

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kty {
    /// Bytes of a symmetric key
    #[value(name = "oct")]
    Oct,
    /// RSA, 2048 bits when it is made here
    #[value(name = "RSA", alias = "rsa")]
    Rsa,
    /// Elliptic curve, P-256 when it is made here
    #[value(name = "EC", alias = "ec")]
    Ec,
}

/// `anchorhold key import`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold key import demo/message --for out.yaml --generate
  anchorhold key import demo/signer --for out.yaml --kty RSA --from private.pem --service https://keys.example
  anchorhold key import -c importkeyconfig.json                                   # the vault and its token are in the file
  anchorhold key import -c importkeyconfig.json --token-file token --ca ca.pem --service https://localhost:8443")]
pub struct KeyImport {
    /// The key's name, for example demo/message
    #[arg(required_unless_present = "config")]
    pub name: Option<String>,
    /// Read the key from this file (`-`: standard input): its bytes, or for RSA and EC a private key in PKCS#8 (PEM or DER)
    #[arg(long, value_name = "FILE", group = "secret")]
    pub from: Option<PathBuf>,
    /// Make a key: 32 random bytes, RSA 2048 or P-256
    #[arg(long, group = "secret", required_unless_present_any = ["from", "config"])]
    pub generate: bool,
    /// Release to the pod of this YAML only (it must carry its policy annotation)
    #[arg(long = "for", value_name = "FILE", required_unless_present = "config")]
    pub pod: Option<PathBuf>,
    /// What kind of key it is
    #[arg(long, value_enum, default_value_t = Kty::Oct)]
    pub kty: Kty,
    /// Issuer of attestation tokens (https://host) that the key is released by, in the place of this project's own verifier
    /// (https://anchorhold.dev/verifier); repeatable
    #[arg(long, value_name = "URL")]
    pub authority: Vec<String>,
    /// The guest image that the pod must run in [default: DATA/guest]
    #[arg(long, env = "ANCHORHOLD_GUEST", value_name = "DIR")]
    pub guest: Option<PathBuf>,
    /// The trusted execution environment that the pod must run in
    #[arg(long, value_enum, default_value_t = Tee::Snp)]
    pub tee: Tee,
    /// Another number of virtual CPUs that the pod's VM may have, besides 1 and what the pod's CPU limits come to (repeatable)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub vcpus: Vec<u32>,
    /// Release to the software TEE too: to a VM that the host can read
    #[arg(long)]
    pub danger_accept_software_tee: bool,
    /// Replace a key of the same name; in a service elsewhere, become its latest version
    #[arg(long)]
    pub replace: bool,
    /// A file of the key importer that comes with the sidecar of AKS and ACI: it names vault, key and claims, and --service another vault
    #[command(flatten)]
    pub file: ImportFile,
    /// Which service.
    #[command(flatten)]
    pub target: Target,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What belongs to an import by file.
#[derive(Debug, Clone, Default, Args)]
pub struct ImportFile {
    /// Import what this file of the known key importer says (importkeyconfig.json): it names vault, key and claims
    #[arg(short, long, value_name = "FILE", conflicts_with_all = [
        "name", "generate", "pod", "kty", "authority", "tee", "vcpus", "danger_accept_software_tee", "replace",
    ])]
    pub config: Option<PathBuf>,
    /// Ask the machine's metadata service for the vault's token (AZURE_POD_IDENTITY_AUTHORITY_HOST names another one)
    #[arg(long, requires = "config", conflicts_with_all = ["pod", "token_file"])]
    pub managed_identity: bool,
    /// Write the key into this new file of mode 0600: its bytes, or PKCS#8 in PEM
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with = "pod")]
    pub key_out: Option<PathBuf>,
    /// Write the 32 bytes that the file's key_derivation makes of an RSA key into this new file of mode 0600
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with = "pod")]
    pub derived_out: Option<PathBuf>,
}
