//! `anchorhold verify evidence`: our own document.

use ah_appraise::{Expect, Guest, ReferenceValues};
use ah_evidence::{Evidence, HostData, MAX_DOCUMENT_BYTES, Presented, ReportData, Tee};
use anyhow::{Context, Result};

use super::output::Answer;
use super::{expect, input, quote, report};
use crate::cli::VerifyEvidence;
use crate::dirs::Dirs;
use crate::guest;
use crate::ui::failure;

pub(super) fn verify(dirs: &Dirs, options: &VerifyEvidence) -> Result<Answer> {
    let file = options.file.as_deref().ok_or_else(|| {
        failure("no evidence was given", "anchorhold verify evidence FILE; --help has examples")
    })?;
    let bytes = input::read(file, MAX_DOCUMENT_BYTES)?;
    let evidence = Evidence::from_json(&bytes)
        .with_context(|| format!("{} is no evidence document", file.display()))?;
    let data = Some(evidence.runtime_data.as_slice());
    let report_data = expect::report_data(options.expected.runtime_data.as_deref(), data)?;
    if let Some(found) = evidence.tdx_quote()? {
        // The sender says which kind it is, so what the owner expects of the other kind is not passed over.
        let expected = &options.expected;
        let of_snp = [
            (options.guest.is_some(), "--guest"),
            (!expected.reference.is_empty(), "--reference"),
            (!expected.uvm.is_empty(), "--uvm"),
            (options.chain.crl.is_some(), "--crl"),
        ];
        if let Some((_, option)) = of_snp.iter().find(|(said, _)| *said) {
            return Err(failure(
                format!(
                    "{} holds a TDX quote, and {option} is about SEV-SNP guests",
                    file.display()
                ),
                "a policy with a section [tdx] says what is expected of quotes",
            ));
        }
        if evidence.initdata.is_some() {
            return Err(failure(
                format!(
                    "{}: initdata beside a TDX quote is not compared in this version",
                    file.display()
                ),
                "a policy with a section [tdx] names mr_config_id",
            ));
        }
        let folder = options.chain.collateral.as_deref().ok_or_else(|| {
            failure("a quote needs collateral", "--collateral names a folder or a file with it")
        })?;
        let now = input::now(options.chain.now.as_deref())?;
        return quote::answer(&found, folder, options.expected.policy.as_deref(), report_data, now);
    }
    let presented = Presented::read(&bytes)?;
    report::answer(&presented, &options.chain, &options.expected, |report| {
        reference(dirs, options, &evidence, report.tee(), report_data)
    })
}

/// What the owner expects; what was not said is waived by name, and shown as waived.
fn reference(
    dirs: &Dirs,
    options: &VerifyEvidence,
    evidence: &Evidence,
    tee: Tee,
    report_data: Expect<ReportData>,
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
    reference.report_data = report_data;
    reference.measurement = match &options.guest {
        Some(folder) => {
            let image = guest::load(dirs, Some(folder))?;
            let vcpus = [crate::run::VCPUS].into();
            let all = crate::launches::launches(&image, &vcpus, tee)?;
            Expect::Is(all.into_iter().map(|launch| launch.measurement).collect())
        }
        None => Expect::any("no --guest was given"),
    };
    reference.host_data = match &evidence.initdata {
        // Says that the report is of this document, not that the document is the right one: that is the policy file's to say.
        Some(initdata) => {
            Expect::Is([ah_policy::InitData::parse(initdata)?.host_data_snp()?].into())
        }
        None => Expect::any("no --policy was given"),
    };
    Ok(reference)
}
