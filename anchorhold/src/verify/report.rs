//! `anchorhold verify report`

use ah_appraise::{Allowance, Expect, Guest, PolicyRule, ReferenceValues, appraise};
use ah_digest::Sha384;
use ah_evidence::{HostData, MAX_DOCUMENT_BYTES, Presented, ReportData, SnpReport, Tee};
use ah_verifier::{Verified, VerifyError};
use anyhow::{Context, Result};

use super::output::{Answer, Fact, Outcome};
use super::{collateral, expect, input};
use crate::cli::{Chain, Expected, VerifyReport};

pub(super) fn verify(options: &VerifyReport) -> Result<Answer> {
    let bytes = input::read(&options.file, MAX_DOCUMENT_BYTES)?;
    let presented =
        Presented::read(&bytes).with_context(|| format!("{}", options.file.display()))?;
    let data = presented.runtime_data.as_deref();
    let report_data = expect::report_data(options.expected.runtime_data.as_deref(), data)?;
    answer(&presented, &options.chain, &options.expected, |report| {
        let mut reference = of_machine(report.tee());
        reference.report_data = report_data;
        if let Some(initdata) = &presented.initdata {
            let digest = ah_policy::InitData::parse(initdata)?.host_data_snp()?;
            reference.host_data = Expect::Is([digest].into());
        }
        Ok(reference)
    })
}

/// Verifies the report, and appraises it by `reference`, the policy file and what somebody stands for.
pub(super) fn answer(
    presented: &Presented,
    chain: &Chain,
    expected: &Expected,
    reference: impl FnOnce(&Verified<SnpReport>) -> Result<ReferenceValues>,
) -> Result<Answer> {
    let now = input::now(chain.now.as_deref())?;
    let form = presented.form;
    let refused = |error: &VerifyError| Answer::refused("report", form, error.check(), error);
    // A report that breaks the specification is refused for that, whatever certificates there are.
    if let Err(error) = SnpReport::parse(&presented.report) {
        return Ok(refused(&VerifyError::Report(error)));
    }
    let found = collateral::of_report(presented, chain)?;
    let roots = collateral::roots(chain)?;
    let report = match ah_verifier::verify(&presented.report, &found, now, &roots) {
        Ok(report) => report,
        Err(error) => return Ok(refused(&error)),
    };
    let mut reference = reference(&report)?;
    if let Some(file) = &expected.policy {
        expect::apply_policy(file, &mut reference)?;
    }
    let endorsed = match expect::endorsed(expected, presented, report.tee(), now)? {
        Ok(endorsed) => endorsed,
        Err(refused) => {
            let outcome = Outcome::Refused { check: refused.check, message: refused.message };
            return Ok(Answer { kind: "report", form: form.to_string(), facts: vec![], outcome });
        }
    };
    endorsed.apply(&mut reference);
    let mut facts = facts(&report);
    facts.extend(endorsed.facts);
    let outcome = Outcome::Appraised(appraise(&report, &reference));
    Ok(Answer { kind: "report", form: form.to_string(), facts, outcome })
}

/// What nobody gives away without saying so: debugging and migration. All else is waived until a policy asks for it.
fn of_machine(tee: Tee) -> ReferenceValues {
    const REASON: &str = "nothing is expected: see --policy";
    let guest = Guest {
        tee,
        measurement: Sha384::new([0; 48]),
        host_data: HostData::new([0; 32]),
        report_data: ReportData::new([0; 64]),
    };
    let policy =
        PolicyRule { smt: Allowance::Allowed, cxl: Allowance::Allowed, ..PolicyRule::STRICT };
    ReferenceValues {
        measurement: Expect::any(REASON),
        host_data: Expect::any(REASON),
        vmpl: Expect::any(REASON),
        guest_policy: Expect::Is(policy),
        ..ReferenceValues::of_guest(guest, REASON)
    }
}

/// What the report says beside its claims.
fn facts(report: &Verified<SnpReport>) -> Vec<Fact> {
    let parts = |version: ah_evidence::TcbVersion| {
        version.parts(report.product()).map_or("unknown".to_owned(), |parts| parts.to_string())
    };
    let cpuid = report.version.cpuid().map_or("not in this version".to_owned(), |cpuid| {
        format!("family {:#x}, model {:#x}, stepping {}", cpuid.family, cpuid.model, cpuid.stepping)
    });
    let provider = report.provider().unwrap_or("none: a vcek belongs to its chip");
    let fact = |name, found: String, meaning| Fact { name, found, meaning };
    vec![
        fact("root", report.root().to_string(), "whose certificate the chain ends in"),
        fact("version", report.version.number().to_string(), "format of the report"),
        fact("processor", cpuid, "CPUID of the processor"),
        fact("signing key", report.signing_key().to_string(), "kind of the key that signed"),
        fact("provider", provider.to_owned(), "cloud that the signing key is leased to"),
        fact("policy bits", format!("{:#x}", report.policy.bits()), "guest policy as a number"),
        fact("platform bits", format!("{:#x}", report.platform_info.0), "platform as a number"),
        fact("current tcb", parts(report.current_tcb), "security versions that run"),
        fact("committed tcb", parts(report.committed_tcb), "versions that it cannot go below"),
        fact("committed firmware", report.committed_firmware.to_string(), "the same for firmware"),
        fact(
            "migration agent's report",
            ah_digest::Digest::<32>::new(report.report_id_ma).to_string(),
            "REPORT_ID_MA; all ones without a migration agent",
        ),
    ]
}
