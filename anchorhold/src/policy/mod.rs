//! `anchorhold policy …`: the owner's commands around the policy generator.

mod carried;
mod fragment;
pub(crate) mod generate;
pub(crate) mod make;
pub(crate) mod output;
mod sidecar;
mod tell;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use ah_policy::PolicyDocument;
use anyhow::Result;

use crate::cli::Policy;
use crate::cli::policy::Kinds;
use crate::dirs::Dirs;
use crate::ui;

/// The exit code of a command that answers a question when there is no answer.
const UNREADABLE: u8 = 2;

/// The one policy of a file.
pub(crate) fn carried_by(file: &Path) -> Result<PolicyDocument> {
    match carried::read(file, &Kinds::default())?.as_slice() {
        [one] => Ok(one.document.clone()),
        all => Err(ui::failure(
            format!("{} has {} policies, expected one", file.display(), all.len()),
            "give each pod a file of its own",
        )),
    }
}

/// The policy of the named object of a file, or its only one.
pub(crate) fn the_document(
    file: &Path,
    pod: Option<&str>,
    kinds: &Kinds,
) -> Result<PolicyDocument> {
    Ok(carried::read_one(file, pod, kinds)?.document)
}

/// Runs one of them. Those that answer a question say yes by 0, no by 1, and by 2 that they could not.
pub(crate) fn run(dirs: &Dirs, command: &Policy, verbose: u8) -> Result<ExitCode> {
    let answer = match command {
        Policy::Generate(options) => {
            return crate::wait(generate::run(dirs, options)).map(|()| ExitCode::SUCCESS);
        }
        Policy::Show(options) => {
            return tell::show(options, verbose).map(|()| ExitCode::SUCCESS);
        }
        Policy::Fragment(command) => {
            return fragment::run(dirs, command).map(|()| ExitCode::SUCCESS);
        }
        Policy::Cases(options) => return tell::cases(options).map(|()| ExitCode::SUCCESS),
        Policy::Explain(options) => tell::explain(options),
        Policy::Test(options) => tell::test(options),
        Policy::Diff(options) => tell::diff(options),
        Policy::Verify(options) => crate::wait(verify::run(dirs, options)),
    };
    Ok(match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::from(UNREADABLE)
        }
    })
}
