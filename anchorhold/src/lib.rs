//! What the `anchorhold` command puts together: owner and host crates on one machine. It decides nothing itself.
#![forbid(unsafe_code)]

pub mod cli;
pub mod dirs;
pub mod guest;
pub mod keys;
mod policy;
pub mod prepare;
pub mod run;
pub mod ui;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Command, Guest, Key, Policy};
use crate::dirs::Dirs;

/// Runs one command; the exit code is the pod's for `run`, else 0 or 1.
pub fn main(cli: Cli) -> ExitCode {
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    let dirs = Dirs::of(cli)?;
    match &cli.command {
        Command::Guest(Guest::Build(options)) => guest::build(&dirs, options)?,
        Command::Guest(Guest::Measure { guest, vcpus, tee, json }) => {
            guest::measure(&dirs, guest.as_deref(), *vcpus, *tee, *json)?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Cli::command(),
                "anchorhold",
                &mut std::io::stdout(),
            );
        }
        Command::Key(Key::Import(options)) => wait(keys::import(&dirs, options))?,
        Command::Key(Key::List { json }) => wait(keys::list(&dirs, *json))?,
        Command::Verify(options) => return verify::run(&dirs, options),
        Command::Run(options) => return wait(run::run(&dirs, options)),
        Command::Policy(Policy::Generate(options)) => wait(policy::generate(&dirs, options))?,
        Command::Policy(Policy::Show { file, json }) => policy::show(file, *json)?,
        Command::Policy(Policy::Explain { file, request, json }) => {
            return policy::explain(file, request, *json);
        }
    }
    Ok(ExitCode::SUCCESS)
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
