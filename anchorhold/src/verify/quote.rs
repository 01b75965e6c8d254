//! `anchorhold verify quote`

use std::path::Path;
use std::time::SystemTime;

use ah_appraise::{AppraisalPolicy, Expect, TdxReferenceValues, appraise_quote};
use ah_collateral::Folder;
use ah_evidence::{RawQuote, ReportData};
use ah_verifier::{
    MAX_QUOTE_COLLATERAL_BYTES, QuoteCollateral, VerifiedQuote, verify_quote_by_any,
};
use anyhow::{Context, Result};

use super::output::{Answer, Fact, Outcome};
use super::{expect, input};
use crate::cli::VerifyQuote;
use crate::ui::failure;

/// Largest file with a quote, bytes: hex has two digits a byte.
const MAX_INPUT_BYTES: usize = 256 * 1024;
const REASON: &str = "nothing is expected: see --policy";

pub(super) fn verify(options: &VerifyQuote) -> Result<Answer> {
    let bytes = input::read(&options.file, MAX_INPUT_BYTES)?;
    let quote = RawQuote::read(&bytes).with_context(|| format!("{}", options.file.display()))?;
    let report_data = expect::report_data(options.runtime_data.as_deref(), None)?;
    let now = input::now(options.now.as_deref())?;
    answer(&quote, &options.collateral, options.policy.as_deref(), report_data, now)
}

/// Verifies the quote with the collateral at `place`, and appraises it.
pub(super) fn answer(
    quote: &RawQuote,
    place: &Path,
    policy: Option<&Path>,
    report_data: Expect<ReportData>,
    now: SystemTime,
) -> Result<Answer> {
    let named = policy;
    let policy = match policy {
        Some(file) => expect::appraisal_policy(file)?.ok_or_else(|| {
            failure("a quote needs an appraisal policy", "--policy names a .toml or .json file")
        })?,
        None => AppraisalPolicy::default(),
    };
    let form = format!("tdx quote, version {}", quote.view().version);
    let verified = match verify_quote_by_any(quote, &documents(place)?, now) {
        Ok(verified) => verified,
        Err(error) => return Ok(Answer::refused("quote", form, error.check(), &error)),
    };
    let mut reference = TdxReferenceValues::strict(report_data, REASON);
    match (policy.tdx, named) {
        (Some(policy), _) => policy.apply(&mut reference),
        (None, None) => {}
        (None, Some(file)) => {
            return Err(failure(
                format!("{} says nothing of TDX quotes", file.display()),
                "a section [tdx], even an empty one, says that they are meant",
            ));
        }
    }
    let facts = facts(&verified);
    let outcome = Outcome::Appraised(appraise_quote(&verified, &reference));
    Ok(Answer { kind: "quote", form, facts, outcome })
}

/// The file, or what the folder has.
fn documents(place: &Path) -> Result<Vec<QuoteCollateral>> {
    let documents = match place.is_dir() {
        true => Folder::new(place).quote_collateral()?,
        false => {
            vec![(place.to_owned(), input::read(place, MAX_QUOTE_COLLATERAL_BYTES)?)]
        }
    };
    let read = |(path, json): &(std::path::PathBuf, Vec<u8>)| {
        QuoteCollateral::from_json(json).with_context(|| format!("{}", path.display()))
    };
    let documents = documents.iter().map(read).collect::<Result<Vec<_>>>()?;
    match documents.is_empty() {
        true => Err(failure(
            format!("there is no quote collateral in {}", place.display()),
            "`anchorhold collateral import` files it there",
        )),
        false => Ok(documents),
    }
}

fn facts(quote: &VerifiedQuote) -> Vec<Fact> {
    let fact = |name, found: String, meaning| Fact { name, found, meaning };
    let hex = |bits: u64| format!("{bits:#x}");
    let mut facts = vec![
        fact("root", "Intel SGX root".to_owned(), "whose certificate the chain ends in"),
        fact("version", quote.version().to_string(), "format of the quote"),
        fact("td attributes bits", hex(quote.td_attributes.0), "TDATTRIBUTES as a number"),
        fact("xfam", hex(quote.xfam), "extended features that the guest may use"),
        fact("seam attributes", hex(quote.seam_attributes), "attributes of the TDX module"),
        fact(
            "collateral expires",
            input::shown(quote.collateral_expires()),
            "when the first part of what this was verified with expires",
        ),
    ];
    if let Some(extension) = &quote.extension {
        let svn = ah_digest::Digest::<16>::new(extension.tee_tcb_svn2).to_string();
        facts.push(fact("tee tcb svn 2", svn, "versions after updates under the running guest"));
    }
    facts
}
