//! The words after `anchorhold policy fragment`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::Images;
use crate::cli::policy::{Reading, RunsOn};

/// `anchorhold policy fragment …`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  anchorhold debug key-gen -o platform.pem           # any Ed25519 key in PEM will do
  anchorhold policy fragment make -f proxy.yaml --feed mesh --version 3 --key platform.pem -o mesh-3.fragment
  anchorhold policy fragment show mesh-3.fragment")]
pub enum Fragment {
    /// Sign the containers of a pod as a fragment
    Make(Box<Make>),
    /// What a fragment adds, in people's words, or as the annotation that carries it
    #[command(after_help = "Example:
  anchorhold policy fragment show mesh-3.fragment --annotation")]
    Show {
        /// The fragment
        file: PathBuf,
        /// Print the value of the annotation anchorhold.dev/fragment instead
        #[arg(long)]
        annotation: bool,
    },
}

/// `anchorhold policy fragment make`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold policy fragment make -f proxy.yaml --feed mesh --version 3 --key platform.pem -o mesh-3.fragment

Taken are the containers of the one pod of the file: image, command, environment, user, capabilities. What a fragment cannot
say (volumes, limits, keys, init containers) is an error.")]
pub struct Make {
    /// Kubernetes YAML with one pod; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub reading: Reading,
    /// What the pods run on that it is for
    #[arg(long, value_enum, default_value_t = RunsOn::Cluster)]
    pub runs_on: RunsOn,
    /// Its images.
    #[command(flatten)]
    pub images: Images,
    /// Which of your fragments it is, as owners name it in anchorhold.dev/fragments
    #[arg(long, value_name = "NAME")]
    pub feed: String,
    /// Its version: higher than that of every earlier one
    #[arg(long, value_name = "NUMBER")]
    pub version: u32,
    /// The private key that owners know by its public half
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the fragment goes
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}
