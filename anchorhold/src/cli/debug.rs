//! The words after `anchorhold debug`.

use std::path::PathBuf;

use ah_digest::Sha256;
use ah_grant::{Challenge, MAX_GRANT_SECONDS};
use clap::{Args, Subcommand};

use crate::cli::policy::Kinds;

/// `anchorhold debug …`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  anchorhold debug key-gen -o debug.pem            # its public half goes into anchorhold.dev/debug-key
  kubectl exec pod -- sh                           # is denied, and prints a challenge
  anchorhold debug grant --key debug.pem --policy out.yaml --challenge CHALLENGE --tty --stdin --any-command
  kubectl exec -it pod -- anchorhold-debug TOKEN sh")]
pub enum Debug {
    /// Make a key that grants debug sessions, and print its public half
    KeyGen(KeyGen),
    /// Sign a grant for a guest's challenge, and print the token
    Grant(Grant),
}

/// `anchorhold debug key-gen`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold debug key-gen -o debug.pem")]
pub struct KeyGen {
    /// Where the private key goes (PKCS #8 PEM, mode 600); a file that is there is not touched
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `anchorhold debug grant`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["policy", "host_data"]),
    group = clap::ArgGroup::new("what").required(true).args(["any_command", "command"]),
    after_help = "Examples:
  anchorhold debug grant --key debug.pem --policy out.yaml --challenge CHALLENGE -- ps -ef
  anchorhold debug grant --key debug.pem --policy out.yaml --challenge CHALLENGE --for 1h --tty --stdin --any-command

One command is granted for once. Any command is granted for as often as you like until the time is over. Then the command is killed and its
input and output end; what it has started in the background goes on. The host sees what goes in and out and the token, so that of any command
it can run its own as well; it can write into a session that has standard input, and stretches the time where it slows the guest's clock.")]
pub struct Grant {
    /// The private key whose public half is in the policy
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// What the guest printed when it denied a command
    #[arg(long, value_name = "CHALLENGE", allow_hyphen_values = true)]
    pub challenge: Challenge,
    /// The YAML, policy or initdata file of the pod: the grant is good for no other policy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// SHA-256 of the policy's document instead (HOST_DATA), 64 hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "container")]
    pub host_data: Option<Sha256>,
    /// The pod of the object with this name, where the file has several
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// The container [default: the policy's only one]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// How long the session lasts from its first command on, up to 24h
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = seconds)]
    pub seconds: u32,
    /// It may have standard input (kubectl's -i): the host can write there, too
    #[arg(long)]
    pub stdin: bool,
    /// It may have a terminal (kubectl's -t)
    #[arg(long)]
    pub tty: bool,
    /// Whatever the bearer likes, instead of one command
    #[arg(long)]
    pub any_command: bool,
    /// The command, word for word
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `90s`, `15m`, `2h`.
fn seconds(text: &str) -> Result<u32, String> {
    let unit = |(at, unit): (usize, char)| {
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return None,
        };
        let digits = text.get(..at).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u32>().ok()?.checked_mul(factor)
    };
    let found = text.char_indices().next_back().and_then(unit);
    found
        .filter(|seconds| (1..=MAX_GRANT_SECONDS).contains(seconds))
        .ok_or_else(|| "expected a time such as 90s, 15m or 2h, up to 24h".to_owned())
}
