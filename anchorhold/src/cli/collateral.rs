//! `anchorhold collateral …`

use std::path::PathBuf;

use clap::Subcommand;

/// `anchorhold collateral …`
#[derive(Debug, Clone, Subcommand)]
pub enum CollateralCommand {
    /// Get what a report needs from AMD's key distribution service, into a folder that `verify --collateral` reads
    #[command(after_help = "Example:
  anchorhold collateral fetch report.bin --dir ./collateral

The service answers few questions a minute; certificates that are in the folder are not asked for again, lists are after a day.")]
    Fetch {
        /// A report, in any form that `verify report` reads
        report: PathBuf,
        /// The folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The service, or a mirror of it
        #[arg(long, value_name = "URL", default_value = ah_collateral::KDS)]
        kds: String,
        /// The longest rest that is taken when the service asks for one
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        max_wait: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// File certificates, revocation lists and quote collateral into such a folder
    #[command(after_help = "Example:
  anchorhold collateral import vcek.der cert_chain.pem vcek.crl thim.json --dir ./collateral

A revocation list is of VCEKs, unless its file name has `vlek` in it: AMD's root signs both under one name.")]
    Import {
        /// Certificates (PEM, DER, JSON of THIM), revocation lists, collateral of TDX quotes (JSON)
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
