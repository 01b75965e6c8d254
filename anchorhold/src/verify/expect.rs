//! What is expected, from wherever the options say.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use ah_appraise::{AppraisalPolicy, Expect, ReferenceValues};
use ah_digest::Sha384;
use ah_evidence::{Presented, ReportData, Tee};
use ah_reference::{
    MAX_REFERENCE_FILE_BYTES, MAX_UVM_BYTES, ReferenceError, ReferenceKey, UvmError, UvmIssuer,
    verify_uvm,
};
use anyhow::{Context, Result};

use super::input::{read, read_text, shown};
use super::output::{Fact, chain};
use crate::cli::Expected;
use crate::ui::failure;

/// Largest appraisal policy, bytes.
const MAX_POLICY_BYTES: usize = 1024 * 1024;
/// Largest runtime data, bytes.
const MAX_RUNTIME_DATA_BYTES: usize = 1024 * 1024;

/// Reference values that are not believed: the check, and why.
pub(super) struct Disbelieved {
    pub(super) check: &'static str,
    pub(super) message: String,
}

/// Measurements that somebody stands for, with what to say of it; None where nobody was named.
pub(super) struct Endorsed {
    measurements: Option<BTreeSet<Sha384>>,
    pub(super) facts: Vec<Fact>,
}

/// An appraisal policy, if the file is one by its name.
pub(super) fn appraisal_policy(file: &Path) -> Result<Option<AppraisalPolicy>> {
    let policy = match file.extension().and_then(|end| end.to_str()) {
        Some("toml") => AppraisalPolicy::from_toml(&read_text(file, MAX_POLICY_BYTES)?),
        Some("json") => AppraisalPolicy::from_json(&read_text(file, MAX_POLICY_BYTES)?),
        _ => return Ok(None),
    };
    policy.map(Some).with_context(|| format!("{}", file.display()))
}

/// Puts the policy file's word into `reference`: an appraisal policy, or a pod's YAML.
pub(super) fn apply_policy(file: &Path, reference: &mut ReferenceValues) -> Result<()> {
    match appraisal_policy(file)? {
        Some(policy) => {
            let policy = policy.snp.ok_or_else(|| {
                failure(
                    format!("{} says nothing of SEV-SNP reports", file.display()),
                    "a section [snp], even an empty one, says that they are meant",
                )
            })?;
            let said = reference.clone();
            policy.apply(reference);
            narrow(&mut reference.measurement, said.measurement);
            narrow(&mut reference.host_data, said.host_data);
            match (&said.report_data, &reference.report_data) {
                (Expect::Is(said), Expect::Is(policy)) if said != policy => Err(failure(
                    "report_data of the policy is not the SHA-256 of the runtime data",
                    "leave one of them out",
                )),
                (Expect::Is(_), _) => {
                    reference.report_data = said.report_data;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        None => {
            let digest = crate::policy::carried_by(file)?.host_data_snp()?;
            narrow(&mut reference.host_data, Expect::Is([digest].into()));
            Ok(())
        }
    }
}

/// What two sources expect: a value that both take.
fn narrow<T: Ord + Copy>(expected: &mut Expect<BTreeSet<T>>, also: Expect<BTreeSet<T>>) {
    *expected = match (&*expected, also) {
        (Expect::Is(one), Expect::Is(other)) => {
            Expect::Is(one.intersection(&other).copied().collect())
        }
        (Expect::Any { .. }, also @ Expect::Is(_)) => also,
        (_, Expect::Any { .. }) => return,
    };
}

/// REPORT_DATA by the file that was named, or by what came with the report.
pub(super) fn report_data(
    file: Option<&Path>,
    presented: Option<&[u8]>,
) -> Result<Expect<ReportData>> {
    let data = match file {
        Some(file) => Some(read(file, MAX_RUNTIME_DATA_BYTES)?),
        None => presented.map(<[u8]>::to_vec),
    };
    Ok(match data {
        Some(data) => Expect::Is(ReportData::for_runtime_data(&data)),
        None => Expect::any("no runtime data is at hand"),
    })
}

/// What signed reference files and UVM endorsements say; `Err` inside where one is not believed.
pub(super) fn endorsed(
    expected: &Expected,
    presented: &Presented,
    tee: Tee,
    now: SystemTime,
) -> Result<Result<Endorsed, Disbelieved>> {
    let mut endorsed = Endorsed { measurements: None, facts: Vec::new() };
    if let Err(refused) = reference_files(expected, tee, now, &mut endorsed)? {
        return Ok(Err(refused));
    }
    // What came with the report counts only where the owner named nobody: its sender chose it.
    let named = !expected.uvm.is_empty() || !expected.reference.is_empty();
    let mut messages = if named { Vec::new() } else { presented.uvm_endorsements.clone() };
    for file in &expected.uvm {
        messages.push(read(file, MAX_UVM_BYTES)?);
    }
    let least = expected.uvm_minimum_svn;
    let issuers =
        [UvmIssuer::azure_container_instances(least)?, UvmIssuer::azure_kubernetes(least)?];
    let mut stood_for = BTreeSet::new();
    for message in &messages {
        match verify_uvm(message, &issuers, now) {
            Ok(uvm) => {
                stood_for.insert(uvm.measurement());
                endorsed.tell_uvm(&uvm);
            }
            Err(error) => return Ok(Err(of_uvm(&error))),
        }
    }
    if !messages.is_empty() {
        endorsed.narrow(stood_for);
    }
    Ok(Ok(endorsed))
}

fn reference_files(
    expected: &Expected,
    tee: Tee,
    now: SystemTime,
    endorsed: &mut Endorsed,
) -> Result<Result<(), Disbelieved>> {
    let Some(key) = &expected.reference_key else { return Ok(Ok(())) };
    let key = ReferenceKey::from_pem(&read_text(key, MAX_REFERENCE_FILE_BYTES)?)?;
    let mut stood_for = BTreeSet::new();
    for file in &expected.reference {
        match key.verify(&read(file, MAX_REFERENCE_FILE_BYTES)?, now) {
            Ok(values) => stood_for.extend(values.measurements(tee)),
            Err(error) => return Ok(Err(of_reference(&error))),
        }
    }
    endorsed.narrow(stood_for);
    Ok(Ok(()))
}

fn of_uvm(error: &UvmError) -> Disbelieved {
    Disbelieved { check: error.check(), message: chain(error) }
}

fn of_reference(error: &ReferenceError) -> Disbelieved {
    Disbelieved { check: error.check(), message: chain(error) }
}

impl Endorsed {
    /// Each source has to stand for the measurement: reference files, and endorsements.
    fn narrow(&mut self, stood_for: BTreeSet<Sha384>) {
        let both = match self.measurements.take() {
            Some(known) => known.intersection(&stood_for).copied().collect(),
            None => stood_for,
        };
        self.measurements = Some(both);
    }

    fn tell_uvm(&mut self, uvm: &ah_reference::UvmEndorsement) {
        let mut fact = |name, found: String, meaning| {
            self.facts.push(Fact { name, found, meaning });
        };
        fact(
            "uvm endorsement",
            uvm.measurement().to_string(),
            "measurement that a cloud stands for",
        );
        fact(
            "uvm issuer",
            uvm.issuer().to_string(),
            "root and purpose of the signer's certificate",
        );
        fact("uvm feed", uvm.feed().to_owned(), "kind of image");
        fact("uvm svn", uvm.svn().to_string(), "version of the image");
        fact("uvm signed", shown(uvm.signed_at()), "time of signing, by the signer's own word");
    }

    /// The measurement has to be one of them, and one of what is expected anyway.
    pub(super) fn apply(&self, reference: &mut ReferenceValues) {
        if let Some(endorsed) = &self.measurements {
            narrow(&mut reference.measurement, Expect::Is(endorsed.clone()));
        }
    }
}
