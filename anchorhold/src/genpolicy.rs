//! `anchorhold genpolicy`: the options of Kata's genpolicy and of `az confcom katapolicygen`, each carried out as here
//! or refused with what to use instead. None is ignored in silence.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use ah_manifest::{Platform, ReadOptions};
use ah_policygen::Agent;
use anyhow::Result;
use clap::{ArgAction, Parser};

use crate::cli::Images;
use crate::cli::policy::Form;
use crate::dirs::Dirs;
use crate::inputs;
use crate::policy::generate::{policies, tell, texts};
use crate::policy::make::{self, Choices, Made};
use crate::policy::output::{self, Target};
use crate::ui::{self, failure};

/// What people type after `genpolicy`.
#[derive(Debug, Parser)]
#[command(
    name = "anchorhold genpolicy",
    about = "`anchorhold policy generate` with the options of genpolicy and `az confcom katapolicygen`",
    disable_version_flag = true,
    after_help = "Examples:
  anchorhold genpolicy -y pod.yaml                       # the policy annotation is put into pod.yaml
  anchorhold genpolicy < pod.yaml > out.yaml
  anchorhold genpolicy -y pod.yaml -r > policy.rego      # also prints the policy text
  anchorhold genpolicy -y pod.yaml --insecure-registry 127.0.0.1:5000

Options of genpolicy that mean nothing here, or would weaken the policy, are refused with what to use instead."
)]
pub(crate) struct Genpolicy {
    /// Kubernetes YAML, rewritten in place [default: standard input to standard output]
    #[arg(short = 'y', long = "yaml-file", alias = "yaml", value_name = "FILE")]
    yaml_file: Option<PathBuf>,
    /// YAML with ConfigMaps and Secrets that the pods use (repeatable)
    #[arg(short = 'c', long = "config-file", aliases = ["config-map-file"], value_name = "FILE")]
    config_files: Vec<PathBuf>,
    /// Print the policy text on standard output
    #[arg(short = 'r', long = "raw-out", alias = "outraw")]
    raw_out: bool,
    /// Print the annotation's value on standard output
    #[arg(short = 'b', long = "base64-out", alias = "print-policy")]
    base64_out: bool,
    /// Registry that is spoken to in plain HTTP (repeatable)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Only pods whose runtimeClassName starts with one of these (repeatable)
    #[arg(long = "runtime-class-names", value_name = "PREFIX")]
    runtime_class_names: Vec<String>,
    /// Layers are always cached here, and checked when read
    #[arg(short = 'u', long = "use-cached-files")]
    use_cached_files: bool,
    /// Print the version
    #[arg(short = 'v', long = "version", alias = "print-version", action = ArgAction::SetTrue)]
    version: bool,
    /// Which annotation carries the policy; the older AKS form has no place for a key service
    #[arg(long, value_enum, default_value_t = Form::Initdata)]
    form: Form,
    /// Whose keys the pods may ask for: this machine's service, none, or a public key in base64
    #[arg(long, default_value = "local", value_name = "local|none|KEY")]
    key_service: String,
    /// OCI layout folder or oci-archive that is asked before a registry (repeatable)
    #[arg(long, value_name = "DIR|ARCHIVE")]
    images: Vec<PathBuf>,
    /// Which image of a multi-platform index is taken: linux/amd64 or linux/arm64
    #[arg(long, value_name = "OS/ARCH", default_value_t = ah_registry::Platform::default())]
    platform: ah_registry::Platform,
    /// As of anchorhold: where keys are kept
    #[arg(long, env = "ANCHORHOLD_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// As of anchorhold: where converted layers are cached
    #[arg(long, env = "ANCHORHOLD_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// What is refused.
    #[command(flatten)]
    refused: Refused,
}

/// Options that are known, and refused.
#[derive(Debug, clap::Args)]
struct Refused {
    /// Refused: the rules are part of this program
    #[arg(
        short = 'p',
        long = "rego-rules-path",
        alias = "rules-file-name",
        value_name = "FILE",
        hide = true
    )]
    rules: Option<OsString>,
    /// Refused: settings are annotations of the pod
    #[arg(
        short = 'j',
        long = "json-settings-path",
        alias = "settings-file-name",
        value_name = "FILE",
        hide = true
    )]
    settings: Option<OsString>,
    /// Refused: as the settings
    #[arg(short = 'i', long = "infra-data-file", value_name = "FILE", hide = true)]
    infra_data: Option<OsString>,
    /// Refused: no field is ignored
    #[arg(short = 's', long = "silent-unsupported-fields", hide = true)]
    silent: bool,
    /// Refused: images are not taken from containerd by this option
    #[arg(short = 'd', long = "containerd-socket-path", alias = "containerd-pull", value_name = "SOCKET",
          num_args = 0..=1, require_equals = true, default_missing_value = "", hide = true)]
    containerd: Option<OsString>,
    /// Refused: the initdata document is made whole
    #[arg(long = "initdata-path", value_name = "FILE", hide = true)]
    initdata: Option<OsString>,
    /// Refused: the cache is a folder of its own
    #[arg(long = "layers-cache-file-path", value_name = "FILE", hide = true)]
    layers_cache: Option<OsString>,
}

impl Refused {
    /// The first option that was given, why it is refused, and what to use instead.
    fn check(&self) -> Result<()> {
        let all: [(bool, &str, &str, &str); 7] = [
            (
                self.rules.is_some(),
                "-p/--rego-rules-path",
                "the rules are part of this program, checked with it, and the same for every pod",
                "write the owner's choices as annotations anchorhold.dev/…: docs/policy.md",
            ),
            (
                self.settings.is_some(),
                "-j/--json-settings-path",
                "there is no settings file: a policy follows from the YAML and its images alone",
                "write the owner's choices as annotations anchorhold.dev/…: docs/policy.md",
            ),
            (
                self.infra_data.is_some(),
                "-i/--infra-data-file",
                "there is no settings file: a policy follows from the YAML and its images alone",
                "leave it out: what containerd and the runtime add to a pod is known here",
            ),
            (
                self.silent,
                "-s/--silent-unsupported-fields",
                "a field that is ignored is a field that the host decides",
                "leave it out: docs/kubernetes-fields.md says what becomes of each field",
            ),
            (
                self.containerd.is_some(),
                "-d/--containerd-pull/--containerd-socket-path",
                "images are not taken from containerd by this option",
                "leave it out to use the registry, or `ctr image export` and --images ARCHIVE",
            ),
            (
                self.initdata.is_some(),
                "--initdata-path",
                "the initdata document is made of the policy and the key service alone",
                "--key-service names the key service; other values have no reader in this guest",
            ),
            (
                self.layers_cache.is_some(),
                "--layers-cache-file-path",
                "layers are cached in a folder, each checked when it is read",
                "--cache DIR says where",
            ),
        ];
        match all.into_iter().find(|(given, ..)| *given) {
            Some((_, option, why, instead)) => {
                Err(failure(format!("{option} is refused: {why}"), instead))
            }
            None => Ok(()),
        }
    }
}

/// Reads the options and runs; the exit code is 0 or 1, 2 for options that are not known.
pub(crate) fn main(options: Vec<OsString>, dirs: impl FnOnce(&Given) -> Result<Dirs>) -> ExitCode {
    let name = OsString::from("anchorhold genpolicy");
    let options = match Genpolicy::try_parse_from(std::iter::once(name).chain(options)) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if options.version {
        crate::ui::say!("anchorhold {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let given = Given { data: options.data.clone(), cache: options.cache.clone() };
    match dirs(&given).and_then(|dirs| crate::wait(run(&dirs, &options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Folders that the options name.
pub(crate) struct Given {
    pub(crate) data: Option<PathBuf>,
    pub(crate) cache: Option<PathBuf>,
}

async fn run(dirs: &Dirs, options: &Genpolicy) -> Result<()> {
    options.refused.check()?;
    if options.use_cached_files {
        eprintln!("-u: layers are always cached, in {}", dirs.layers().display());
    }
    let file = options.yaml_file.clone().unwrap_or_else(|| "-".into());
    let inputs = inputs::read(std::slice::from_ref(&file), &options.config_files, &cluster())?;
    let prefixes = &options.runtime_class_names;
    let wanted = |pod: &ah_manifest::PodTemplate| {
        let class = pod.runtime_class().unwrap_or_default();
        prefixes.is_empty() || prefixes.iter().any(|prefix| class.starts_with(prefix.as_str()))
    };
    let (form, agent) = (options.form, Agent::default());
    let choices = async {
        let key_service = make::key_service(dirs, &options.key_service, form, agent).await?;
        Ok(Choices { runs_on: None, form, agent, key_service })
    };
    let places = Images {
        images: options.images.clone(),
        plain_http: options.insecure_registry.clone(),
        platform: vec![options.platform],
        ..Images::default()
    };
    let made = policies(dirs, &inputs, &wanted, &places, choices).await?;
    print_policies(options, &made);
    write(options, &file, &texts(&inputs, &made)?)?;
    tell(&made)
}

/// As genpolicy reads: for a cluster.
fn cluster() -> ReadOptions {
    ReadOptions { platform: Platform::Cluster, ..ReadOptions::default() }
}

fn print_policies(options: &Genpolicy, made: &[Made]) {
    for pod in made {
        if options.raw_out {
            ui::print(format_args!("{}", pod.document.policy()));
        }
        if options.base64_out {
            crate::ui::say!("{}", pod.annotation);
        }
    }
}

/// With standard input, a printed policy takes the place of the YAML, as genpolicy has it.
fn write(options: &Genpolicy, file: &std::path::Path, texts: &[String]) -> Result<()> {
    let printed = options.raw_out || options.base64_out;
    match (&options.yaml_file, texts) {
        (Some(_), [text]) => output::rewrite(file, text),
        (None, [text]) if !printed => output::files(
            &Target::Standard,
            vec![(PathBuf::from("stdin.yaml"), text.clone().into_bytes())],
        ),
        _ => Ok(()),
    }
}
