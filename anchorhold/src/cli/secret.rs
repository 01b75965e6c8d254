//! `anchorhold secret …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `anchorhold secret …`
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Print a secret as a text that stands for it in the pod's YAML: the guest opens it before the container starts
    Seal(Seal),
}

/// `anchorhold secret seal`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("place").required(true), after_help = "Example:
  anchorhold secret seal --key-file db.key --new-key --key-id demo/db --env DB_PASSWORD --from password.txt
  # the printed text becomes the variable's value; then
  anchorhold policy generate -f pod.yaml --images ./images -o out.yaml
  anchorhold key import demo/db --for out.yaml --from db.key

The text opens in the variable of this name or the file of this path only. Neither key nor secret is ever printed. docs/sealed.md has the format.")]
pub struct Seal {
    /// The key's 32 bytes
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Make the key file, which must not be there yet
    #[arg(long)]
    pub new_key: bool,
    /// The name that the key has, or will have, in the key service
    #[arg(long, value_name = "NAME")]
    pub key_id: String,
    /// The environment variable that the secret is for
    #[arg(long, value_name = "NAME", group = "place")]
    pub env: Option<String>,
    /// The file of a ConfigMap or Secret that the secret is for: its path in the container
    #[arg(long, value_name = "PATH", group = "place")]
    pub file: Option<String>,
    /// Read the secret from this file (`-`: standard input)
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub from: PathBuf,
    /// Keep a newline at the end of a variable's value
    #[arg(long, conflicts_with = "file")]
    pub keep_newline: bool,
}
