//! `anchorhold verify`: what a report, quote or token proves, claim by claim.

mod collateral;
mod evidence;
mod expect;
mod input;
mod output;
mod quote;
mod report;
mod token;

pub(crate) use input::read as read_input;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Verify, VerifyWhat};
use crate::dirs::Dirs;
use crate::ui;
use output::Answer;

/// Exit code where there is no answer because the input cannot be read.
const UNREADABLE: u8 = 2;

/// Verifies, and prints each claim: 0 when all is as expected, 1 when something is not, 2 when the input cannot be read.
pub(crate) fn run(dirs: &Dirs, options: &Verify) -> ExitCode {
    let (answer, as_json) = match &options.what {
        Some(VerifyWhat::Report(options)) => (report::verify(options), options.json),
        Some(VerifyWhat::Quote(options)) => (quote::verify(options), options.json),
        Some(VerifyWhat::Token(options)) => (token::verify(options), options.json),
        Some(VerifyWhat::Evidence(options)) => (evidence::verify(dirs, options), options.json),
        None => (evidence::verify(dirs, &options.evidence), options.evidence.json),
    };
    match answer.and_then(|answer| tell(&answer, as_json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::from(UNREADABLE)
        }
    }
}

fn tell(answer: &Answer, as_json: bool) -> Result<bool> {
    match as_json {
        true => ui::say!("{}", serde_json::to_string(&answer.to_json())?),
        false => answer.print(),
    }
    Ok(answer.is_accepted())
}
