//! What the `anchorhold` command puts together: owner and host crates on one machine. It decides nothing itself.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout)]

pub mod cli;
mod collateral;
mod containerd;
mod debug;
mod declog;
pub mod dirs;
mod genpolicy;
pub mod guest;
mod import_file;
mod inputs;
mod key_serve;
pub mod keys;
mod keyservice;
mod keystore;
pub mod launches;
mod node;
mod owner_key;
mod policy;
pub mod prepare;
mod reference;
mod remote;
mod resolve;
pub mod run;
mod secret;
mod store;
mod tee;
pub mod ui;
mod verify;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches};

use crate::cli::{Cli, Command, Guest, Key};
use crate::dirs::Dirs;

/// The name under which kubectl finds a plugin `anchorhold`.
const KUBECTL_PLUGIN: &str = "kubectl-anchorhold";

/// Runs the command of these arguments, the program's own name first; the exit code is the pod's for `run`, else 0 or
/// 1, for commands that answer a question 2 when there is no answer.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut rest = arguments.iter().skip(1);
    if rest.next().is_some_and(|first| first == "genpolicy") {
        return genpolicy::main(rest.cloned().collect(), |given| {
            Dirs::new(given.data.as_deref(), given.cache.as_deref())
        });
    }
    let cli = parse(&arguments);
    ui::tell(cli.verbose);
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments, or ends the program with help or what is wrong with them.
fn parse(arguments: &[OsString]) -> Cli {
    let program = arguments.first().map(Path::new).and_then(Path::file_stem);
    let mut command = Cli::command();
    if program.is_some_and(|name| name == KUBECTL_PLUGIN) {
        command = command.bin_name("kubectl anchorhold");
    }
    let matches = command.get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    if let Command::Genpolicy { options } = &cli.command {
        return Ok(genpolicy::main(options.clone(), |given| {
            Dirs::new(
                given.data.as_deref().or(cli.data.as_deref()),
                given.cache.as_deref().or(cli.cache.as_deref()),
            )
        }));
    }
    let dirs = Dirs::new(cli.data.as_deref(), cli.cache.as_deref())?;
    match &cli.command {
        Command::Guest(Guest::Build(options)) => guest::build(&dirs, options)?,
        Command::Guest(Guest::Measure {
            guest, vcpus, tee, sign: Some(key), valid_days, ..
        }) => {
            let image = guest::load(&dirs, guest.as_deref())?;
            reference::sign(&image, *vcpus, *tee, key, *valid_days)?;
        }
        Command::Guest(Guest::Measure { guest, vcpus, tee, json, .. }) => {
            guest::measure(&dirs, guest.as_deref(), *vcpus, *tee, *json)?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "anchorhold", &mut script);
            ui::print(format_args!("{}", String::from_utf8_lossy(&script)));
        }
        Command::Debug(command) => debug::run(command)?,
        Command::Verify(options) => return Ok(verify::run(&dirs, options)),
        Command::Collateral(command) => wait(collateral::run(command))?,
        Command::Key(command) => wait(key(&dirs, command))?,
        Command::Secret(command) => secret::run(command)?,
        Command::KeyService(command) => wait(keyservice::run(&dirs, command))?,
        Command::Log(command) => return wait(declog::run(&dirs, command)),
        Command::Run(options) => return wait(run::run(&dirs, options)),
        Command::Node(command) => return wait(node::run(&dirs, command)),
        Command::Policy(command) => return policy::run(&dirs, command, cli.verbose),
        // Its options are read by itself, above.
        Command::Genpolicy { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn key(dirs: &Dirs, command: &Key) -> Result<()> {
    use keystore::Action;
    match command {
        Key::Import(options) if options.file.config.is_some() => import_file::run(options).await,
        Key::Import(options) => keys::import(dirs, options).await,
        Key::Serve(options) => key_serve::run(dirs, options).await,
        Key::List { target, json } if target.service.is_some() => {
            keystore::list(dirs, target, *json).await
        }
        Key::List { json, .. } => keys::list(dirs, *json).await,
        Key::Show(options) => keystore::one(dirs, options, Action::Show).await,
        Key::Disable(options) => keystore::one(dirs, options, Action::Disable).await,
        Key::Enable(options) => keystore::one(dirs, options, Action::Enable).await,
        Key::Rotate(options) => keystore::one(dirs, options, Action::Rotate).await,
        Key::Delete(options) => keystore::one(dirs, options, Action::Delete).await,
        Key::Backup(options) => keystore::backup(dirs, options).await,
        Key::Restore(options) => keystore::restore(dirs, options).await,
    }
}

/// Runs one asynchronous command to its end.
fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work)
}

/// A manifest's error with its remedy.
pub(crate) fn manifest_error(error: ah_manifest::ManifestError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => ui::failure(&error, hint),
        None => error.into(),
    }
}
