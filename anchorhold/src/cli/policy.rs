//! The words after `anchorhold policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Images;
use crate::cli::fragment::Fragment;

/// `anchorhold policy …`
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  anchorhold policy generate -f pod.yaml -o out.yaml     # then: kubectl apply -f out.yaml
  helm template chart | anchorhold policy generate -f - | kubectl apply -f -
  anchorhold policy show out.yaml
  anchorhold policy diff old.yaml out.yaml")]
pub enum Policy {
    /// Pin every image tag to its digest and add the policy annotation to every pod
    Generate(Generate),
    /// The policy in people's words: who may run what, and what the host may still choose
    Show(Show),
    /// Which rule and field denied a request, found and expected
    Explain(Explain),
    /// Decide a list of requests, and compare with what is expected of each
    Test(Test),
    /// What an honest host asks for, as cases to begin with
    Cases(Cases),
    /// What a change lets in and shuts out
    Diff(Diff),
    /// Is the annotation the policy of this YAML, and are the images still the pinned ones?
    Verify(Verify),
    /// Containers that somebody else signs, for policies that let them in
    #[command(subcommand)]
    Fragment(Fragment),
}

/// A file with a policy, as the only argument or with `-f`.
#[derive(Debug, Args)]
#[group(id = "policy-file", required = true, multiple = false, args = ["positional", "flag"])]
pub struct PolicyFile {
    /// YAML with a policy annotation, a policy text or an initdata TOML; `-` reads standard input
    #[arg(value_name = "FILE")]
    positional: Option<PathBuf>,
    /// The same
    #[arg(short = 'f', long = "file", value_name = "FILE", id = "flag")]
    flag: Option<PathBuf>,
}

impl PolicyFile {
    /// The file, however it was given.
    pub fn path(&self) -> PathBuf {
        self.positional.clone().or_else(|| self.flag.clone()).unwrap_or_else(|| "-".into())
    }
}

/// Kinds beside Kubernetes' own that have pods in them.
#[derive(Debug, Clone, Default, Args)]
pub struct Kinds {
    /// Rules for kinds of your own that have pods in them (docs/kinds.md; repeatable)
    #[arg(long, value_name = "FILE")]
    pub kinds: Vec<PathBuf>,
}

/// How YAML with pods is read.
#[derive(Debug, Clone, Default, Args)]
pub struct Reading {
    /// YAML with what the pods use (ConfigMaps, Secrets, Services), no part of the result (repeatable)
    #[arg(long, value_name = "FILE|DIR")]
    pub with: Vec<PathBuf>,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// Leave alone what looks like a pod in a kind without a rule: it gets no policy
    #[arg(long)]
    pub pass_unknown_pods: bool,
    /// Read pods as they stand where their controller adds what no rule says: the policy denies what it adds
    #[arg(long)]
    pub accept_incomplete: bool,
}

/// What pods run on that do not say it themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunsOn {
    /// A Kubernetes cluster, which adds its API's variables and a service account's token
    Cluster,
    /// `anchorhold run`, which adds nothing
    Machine,
}

impl From<RunsOn> for ah_manifest::Platform {
    fn from(said: RunsOn) -> Self {
        match said {
            RunsOn::Cluster => Self::Cluster,
            RunsOn::Machine => Self::OneMachine,
        }
    }
}

/// `anchorhold policy generate`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold policy generate -f pod.yaml --images ./images -o out.yaml && kubectl apply -f out.yaml
  anchorhold policy generate -f manifests/ -o with-policy/ --sidecar digests.json
  anchorhold policy generate -f deploy.yaml --in-place
  anchorhold policy generate -f deploy.yaml --for kata -o out.yaml      # for the agent of a Kata node
  kustomize build . | anchorhold policy generate -f - | kubectl apply -f -

The output of a generated file is the file itself: generating again changes nothing.")]
pub struct Generate {
    /// Kubernetes YAML, or a folder of *.yaml, *.yml and *.json; `-` reads standard input (repeatable)
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// How it is read.
    #[command(flatten)]
    pub reading: Reading,
    /// What the pods run on; `machine` is written into the YAML, as annotation anchorhold.dev/runs-on [default: cluster]
    #[arg(long, value_enum)]
    pub runs_on: Option<RunsOn>,
    /// Its images.
    #[command(flatten)]
    pub images: Images,
    /// Where the YAML goes: a file, or a folder for several files [default: standard output]
    #[arg(short, long, value_name = "FILE|DIR", conflicts_with = "in_place")]
    pub output: Option<PathBuf>,
    /// Write each file anew where it is, when something changed
    #[arg(long)]
    pub in_place: bool,
    /// Only the policy text of each pod, or its initdata document, instead of YAML
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "policy",
          conflicts_with = "in_place", value_name = "WHAT")]
    pub raw: Option<Raw>,
    /// Which annotation carries the policy
    #[arg(long, value_enum, default_value_t = Form::Initdata)]
    pub form: Form,
    /// Which agent enforces it: this project's guest, or that of a Kata Containers 4 node
    #[arg(long = "for", value_enum, default_value_t = For::Anchorhold)]
    pub agent: For,
    /// Whose keys the pods may ask for: this machine's service, none, or a public key in base64
    #[arg(long, default_value = "local", value_name = "local|none|KEY")]
    pub key_service: String,
    /// Also write digests, pinned images and sizes of each pod to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub sidecar: Option<PathBuf>,
    /// Print the same on standard output (needs -o or --in-place)
    #[arg(long)]
    pub json: bool,
}

/// What `--raw` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Raw {
    /// The Rego text
    Policy,
    /// The initdata TOML whose digest is in HOST_DATA
    Initdata,
}

/// Which agent enforces the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// This project's guest: layers by their root hashes, files by their digests
    Anchorhold,
    /// A stock Kata guest: images by their digests, pulled in the guest; `policy show` says what it cannot check
    Kata,
}

impl From<For> for ah_policygen::Agent {
    fn from(which: For) -> Self {
        match which {
            For::Anchorhold => Self::Anchorhold,
            For::Kata => Self::Kata,
        }
    }
}

/// How a pod carries its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// io.katacontainers.config.hypervisor.cc_init_data: an initdata document, gzip, base64
    Initdata,
    /// io.katacontainers.config.agent.policy: the policy text in base64, as AKS has it
    Aks,
}

/// `anchorhold policy show`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold policy show out.yaml
  anchorhold policy show out.yaml -v          # every layer and every mount, whole
  anchorhold policy show out.yaml --pod web --json")]
pub struct Show {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFile,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// Only the pod of the object with this name
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold policy explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold policy explain out.yaml --request request.json
  anchorhold policy explain out.yaml --kind ExecProcess --request exec.json
  anchorhold policy explain out.yaml --after cases.json --request request.json

The request is {\"kind\": \"CreateContainerRequest\", \"request\": {...}}, or with --kind the inner part alone, as a Kata
agent logs its policy input. Without --after it is decided in the state that an honest host would have reached.
Exit code: 0 allowed, 1 denied, 2 unreadable.")]
pub struct Explain {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFile,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// The request as JSON; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// What the request is, where the file does not say it: a rule's or a method's name
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Cases (as of `policy test`) that come before the request
    #[arg(long, value_name = "CASES")]
    pub after: Option<PathBuf>,
    /// The pod of the object with this name
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold policy test`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold policy cases out.yaml > cases.json      # what an honest host does: all allowed
  anchorhold policy test out.yaml --cases cases.json

A case is {\"description\": ..., \"allowed\": true|false, \"kind\": \"CreateContainerRequest\", \"request\": {...}}; missing
fields of the request have their defaults; the state is kept from case to case.
Exit code: 0 all ok, 1 some not ok, 2 unreadable.")]
pub struct Test {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFile,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// The cases: a JSON list; `-` reads standard input
    #[arg(long, value_name = "CASES")]
    pub cases: PathBuf,
    /// The pod of the object with this name
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold policy cases`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold policy cases out.yaml > cases.json")]
pub struct Cases {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFile,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// The pod of the object with this name
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Print them although the requests hold values of Secrets
    #[arg(long)]
    pub with_secrets: bool,
}

/// `anchorhold policy diff`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  anchorhold policy diff old.yaml new.yaml
  git show HEAD:deploy.yaml | anchorhold policy diff - deploy.yaml

Exit code: 0 the same, 1 different, 2 unreadable.")]
pub struct Diff {
    /// YAML with a policy annotation, a policy text or an initdata TOML
    pub old: PathBuf,
    /// The same, after the change
    pub new: PathBuf,
    /// Rules for kinds.
    #[command(flatten)]
    pub kinds: Kinds,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `anchorhold policy verify`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anchorhold policy verify out.yaml
  anchorhold policy verify out.yaml --images ./images --current-tags

The policy is generated again from the YAML and compared with the annotation, byte for byte.
Exit code: 0 it is the policy of this YAML, 1 it is not, 2 unreadable.")]
pub struct Verify {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFile,
    /// How it is read.
    #[command(flatten)]
    pub reading: Reading,
    /// Its images.
    #[command(flatten)]
    pub images: Images,
    /// Whose keys the pods must ask for: this machine's service if there is one, any, or a public key in base64
    #[arg(long, default_value = "local", value_name = "local|any|KEY")]
    pub key_service: String,
    /// Fail when a tag names another image by now than the pinned one (else it is only said)
    #[arg(long)]
    pub current_tags: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
