//! `anchorhold verify`: what a report proves, claim by claim.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use ah_appraise::{Appraisal, Expect, Guest, ReferenceValues};
use ah_collateral::Certificates;
use ah_evidence::{Evidence, HostData, MAX_DOCUMENT_BYTES};
use ah_verifier::{Revocation, TrustedRoots};
use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cli::Verify;
use crate::dirs::Dirs;
use crate::{guest, keys, ui};

/// Verifies the evidence and prints each claim; fails when one is not met.
pub(crate) fn run(dirs: &Dirs, options: &Verify) -> Result<ExitCode> {
    let evidence = read(&options.evidence)?;
    let raw = evidence.snp_report()?;
    let collateral = if options.certificate.is_empty() {
        ah_collateral::from_evidence(&evidence, not_checked())?
    } else {
        let mut certificates = Certificates::default();
        for file in &options.certificate {
            ah_collateral::read_certificates(&mut certificates, file)?;
        }
        certificates.collateral(not_checked())?
    };
    let mut roots = TrustedRoots::amd();
    if let Some(file) = &options.danger_software_root {
        let der = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        roots = roots.danger_with_software_root(&der)?;
    }
    let report = ah_verifier::verify(&raw, &collateral, SystemTime::now(), &roots)?;
    let appraisal =
        ah_appraise::appraise(&report, &reference(dirs, options, &evidence, report.tee())?);
    print(&appraisal, options.json)?;
    Ok(if appraisal.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn not_checked() -> Revocation {
    Revocation::NotChecked { reason: "the command line has no revocation list".into() }
}

fn read(file: &Path) -> Result<Evidence> {
    let bytes = if file == Path::new("-") {
        keys::read_text(file)?.into_bytes()
    } else {
        let length =
            fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
        if length > MAX_DOCUMENT_BYTES as u64 {
            bail!(
                "{} has {length} bytes, an evidence document has at most {MAX_DOCUMENT_BYTES}",
                file.display()
            );
        }
        fs::read(file).with_context(|| format!("reading {}", file.display()))?
    };
    Evidence::from_json(&bytes)
        .with_context(|| format!("{} is no evidence document", file.display()))
}

/// What the owner expects; what was not said is waived by name, and shown as waived.
fn reference(
    dirs: &Dirs,
    options: &Verify,
    evidence: &Evidence,
    tee: ah_evidence::Tee,
) -> Result<ReferenceValues> {
    let mut reference = ReferenceValues::of_guest(
        Guest {
            tee,
            measurement: ah_digest::Sha384::new([0; 48]),
            host_data: HostData::new([0; 32]),
            report_data: evidence.expected_report_data(),
        },
        "the command line expects nothing of the machine",
    );
    reference.measurement = match &options.guest {
        Some(folder) => {
            let image = guest::load(dirs, Some(folder))?;
            let vcpus = [crate::run::VCPUS].into();
            let all = crate::launches::launches(&image, &vcpus, tee)?;
            Expect::Is(all.into_iter().map(|launch| launch.measurement).collect())
        }
        None => Expect::any("no --guest was given"),
    };
    reference.host_data = match (&options.policy, &evidence.initdata) {
        (Some(file), _) => Expect::Is([crate::policy::carried_by(file)?.host_data_snp()?].into()),
        // Says that the report is of this document, not that the document is the right one.
        (None, Some(initdata)) => {
            Expect::Is([ah_policy::InitData::parse(initdata)?.host_data_snp()?].into())
        }
        (None, None) => Expect::any("no --policy was given"),
    };
    Ok(reference)
}

fn print(appraisal: &Appraisal, as_json: bool) -> Result<()> {
    if as_json {
        crate::ui::say!(
            "{}",
            serde_json::to_string(&json!({ "met": appraisal.is_met(), "appraisal": appraisal }))?
        );
        return Ok(());
    }
    crate::ui::say!("{appraisal}");
    if appraisal.tee == ah_evidence::Tee::Software {
        eprintln!("{}: this report proves nothing about hardware", ui::SOFTWARE_TEE);
    }
    Ok(())
}
