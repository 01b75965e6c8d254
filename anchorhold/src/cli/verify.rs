//! `anchorhold verify …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `anchorhold verify`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Verify {
    /// What is verified.
    #[command(subcommand)]
    pub what: Option<VerifyWhat>,
    /// Without a word for it, an evidence document.
    #[command(flatten)]
    pub evidence: VerifyEvidence,
}

const EXAMPLES: &str = "Examples:
  anchorhold verify report report.bin --vek vcek.der --ask ask.pem --policy policy.toml
  anchorhold verify report report.bin --collateral ./collateral --json
  anchorhold verify quote quote.bin --collateral ./collateral
  anchorhold verify token token.jwt --jwks certs.json --issuer https://attest.example
  anchorhold verify evidence evidence.json --policy out.yaml --guest ./guest

The exit code is 0 when everything is as expected, 1 when something is not, and 2 when the input cannot be read.";

/// What is verified.
#[derive(Debug, Subcommand)]
pub enum VerifyWhat {
    /// An SEV-SNP report, in any of the forms in which they are handed around
    #[command(
        after_help = "Forms: the 1184 bytes, a guest device's response, a report with its certificate table, hex or base64 of these, the
blob of a confidential VM's vTPM (HCL), our evidence document, an attestation request (SnpReport, VcekCertChain, Endorsements),
a sidecar's answer. The exit code is 0, 1 (refused) or 2 (unreadable)."
    )]
    Report(VerifyReport),
    /// An Intel TDX quote
    #[command(after_help = "The exit code is 0, 1 (refused) or 2 (unreadable).")]
    Quote(VerifyQuote),
    /// An attestation token (JWT) against the keys of its issuer
    #[command(after_help = "The exit code is 0, 1 (refused) or 2 (unreadable).")]
    Token(VerifyToken),
    /// Our own evidence document, with a report or a quote in it
    #[command(after_help = "The exit code is 0, 1 (refused) or 2 (unreadable).")]
    Evidence(VerifyEvidence),
}

/// Certificates, lists, and the time that counts.
#[derive(Debug, Clone, Default, Args)]
pub struct Chain {
    /// VCEK or VLEK: PEM, DER or the JSON of THIM
    #[arg(long, value_name = "FILE")]
    pub vek: Option<PathBuf>,
    /// ASK or ASVK (PEM or DER)
    #[arg(long, value_name = "FILE")]
    pub ask: Option<PathBuf>,
    /// ARK (PEM or DER); AMD's own are known
    #[arg(long, value_name = "FILE")]
    pub ark: Option<PathBuf>,
    /// Certificates of any of these kinds (repeatable)
    #[arg(long, value_name = "FILE")]
    pub certificate: Vec<PathBuf>,
    /// AMD's revocation list (PEM or DER)
    #[arg(long, value_name = "FILE")]
    pub crl: Option<PathBuf>,
    /// Folder with certificates and lists, as `anchorhold collateral` fills it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["vek", "ask", "ark", "certificate"])]
    pub collateral: Option<PathBuf>,
    /// Judge as if it were this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<String>,
    /// Also trust this root (DER or PEM): what it signs proves nothing about AMD's hardware
    #[arg(long, value_name = "FILE", alias = "danger-software-root")]
    pub danger_trust_root: Option<PathBuf>,
}

/// Where reference values come from.
#[derive(Debug, Clone, Default, Args)]
pub struct Expected {
    /// What is expected: an appraisal policy (.toml or .json), or YAML whose policy HOST_DATA must be the digest of
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Signed reference values (`anchorhold guest measure --sign`) that the measurement must be one of (repeatable)
    #[arg(long, value_name = "FILE", requires = "reference_key")]
    pub reference: Vec<PathBuf>,
    /// The key whose reference values are believed (Ed25519, PEM)
    #[arg(long, value_name = "FILE", requires = "reference")]
    pub reference_key: Option<PathBuf>,
    /// UVM endorsement of Azure (COSE_Sign1) that must be for the measurement (repeatable)
    #[arg(long, value_name = "FILE")]
    pub uvm: Vec<PathBuf>,
    /// Least image version in UVM endorsements
    #[arg(long, value_name = "SVN", default_value_t = 0)]
    pub uvm_minimum_svn: u64,
    /// The bytes that REPORT_DATA must be the SHA-256 of
    #[arg(long, value_name = "FILE")]
    pub runtime_data: Option<PathBuf>,
}

/// `anchorhold verify report`
#[derive(Debug, Clone, Args)]
pub struct VerifyReport {
    /// The report; `-` reads standard input
    pub file: PathBuf,
    /// Certificates.
    #[command(flatten)]
    pub chain: Chain,
    /// Reference values.
    #[command(flatten)]
    pub expected: Expected,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold verify quote`
#[derive(Debug, Clone, Args)]
pub struct VerifyQuote {
    /// The quote; `-` reads standard input
    pub file: PathBuf,
    /// Its collateral (JSON), or a folder whose intel/*.json are tried
    #[arg(long, value_name = "FILE|DIR")]
    pub collateral: PathBuf,
    /// What is expected: an appraisal policy (.toml or .json)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The bytes that REPORTDATA must be the SHA-256 of
    #[arg(long, value_name = "FILE")]
    pub runtime_data: Option<PathBuf>,
    /// Judge as if it were this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold verify token`
#[derive(Debug, Clone, Args)]
pub struct VerifyToken {
    /// The token; `-` reads standard input
    pub file: PathBuf,
    /// The issuer's keys (JWKS), which are believed
    #[arg(long, value_name = "FILE")]
    pub jwks: PathBuf,
    /// The issuer that the token must name
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// Judge as if it were this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold verify evidence`
#[derive(Debug, Clone, Args)]
pub struct VerifyEvidence {
    /// Evidence document (JSON); `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The guest image whose launch measurement the report must carry
    #[arg(long, env = "ANCHORHOLD_GUEST", value_name = "DIR")]
    pub guest: Option<PathBuf>,
    /// Certificates.
    #[command(flatten)]
    pub chain: Chain,
    /// Reference values.
    #[command(flatten)]
    pub expected: Expected,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
