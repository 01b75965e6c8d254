//! A verified report as claims, under the names that Microsoft Azure Attestation gives them.

use std::fmt::Write as _;

use ah_evidence::{SnpReport, Tee};
use ah_release_api::policy::{Claims, ConditionResult, HARDWARE_TEE, SOFTWARE_TEE, claim};
use ah_verifier::{Chip, RevocationStatus, Verified};

/// All claims that a release policy may name.
pub(crate) fn of_report(report: &Verified<SnpReport>) -> Claims {
    let mut claims = Claims::default();
    let tee = match report.tee() {
        Tee::Software => SOFTWARE_TEE,
        Tee::Snp | Tee::Tdx => HARDWARE_TEE,
    };
    claims.insert(claim::TEE, tee);
    claims.insert(claim::ATTESTATION_TYPE, "sevsnpvm");
    let revocation = match report.revocation() {
        RevocationStatus::NotRevoked => "not revoked",
        RevocationStatus::NotChecked { .. } => "not checked",
    };
    claims.insert(claim::REVOCATION, revocation);
    claims.insert(claim::LAUNCH_MEASUREMENT, report.measurement.to_string());
    claims.insert(claim::HOST_DATA, report.host_data.to_string());
    claims.insert(claim::REPORT_DATA, report.report_data.to_string());
    claims.insert(claim::REPORT_ID, hex(&report.report_id));
    claims.insert(claim::IS_DEBUGGABLE, report.policy.debug_allowed());
    claims.insert(claim::MIGRATION_ALLOWED, report.policy.migration_allowed());
    claims.insert(claim::SMT_ALLOWED, report.policy.smt_allowed());
    claims.insert(claim::VMPL, u32::from(report.vmpl));
    claims.insert(claim::GUEST_SVN, report.guest_svn);
    claims.insert(claim::FAMILY_ID, hex(&report.family_id));
    claims.insert(claim::IMAGE_ID, hex(&report.image_id));
    claims.insert(claim::ID_KEY_DIGEST, report.id_key_digest.to_string());
    claims.insert(claim::AUTHOR_KEY_DIGEST, report.author_key_digest.to_string());
    let tcb = report.tcb();
    claims.insert(claim::BOOTLOADER_SVN, u32::from(tcb.boot_loader));
    claims.insert(claim::TEE_SVN, u32::from(tcb.tee));
    claims.insert(claim::SNP_FIRMWARE_SVN, u32::from(tcb.snp));
    claims.insert(claim::MICROCODE_SVN, u32::from(tcb.microcode));
    claims.insert(claim::CHIP_FAMILY, report.product().name());
    // A chip id that no certificate names is no claim about a chip.
    if let Chip::Identified(chip) = report.chip() {
        claims.insert(claim::CHIP_ID, chip.to_string());
    }
    claims
}

/// What makes a guest weaker than a guest need be. A policy that says nothing of it does not mean to allow it.
pub(crate) struct Weakness {
    pub(crate) claim: &'static str,
    pub(crate) words: &'static str,
}

/// The weaknesses of the guest that `claims` describe and that none of the comparisons in `met` names. A met `equals` names the weak
/// value itself, so the owner wrote it down; `exists` or `less` name none.
pub(crate) fn unnamed_weaknesses(claims: &Claims, met: &[ConditionResult]) -> Vec<Weakness> {
    weaknesses(met, |claim, strong| {
        claims.find(claim).is_none_or(|found| found.to_string() != strong)
    })
}

/// The same for claims of others, who need not make every claim: one that is not made is no weakness.
pub(crate) fn unnamed_weaknesses_of_token(
    claims: &Claims,
    met: &[ConditionResult],
) -> Vec<Weakness> {
    weaknesses(met, |claim, strong| {
        claims.find(claim).is_some_and(|found| found.to_string() != strong)
    })
}

fn weaknesses(met: &[ConditionResult], is_weak: impl Fn(&str, &str) -> bool) -> Vec<Weakness> {
    let strong: [(&str, &str, &str); 4] = [
        (claim::TEE, HARDWARE_TEE, "the TEE is a program, so the guest is not confidential"),
        (claim::IS_DEBUGGABLE, "false", "the guest is debuggable, so its host can read its memory"),
        (claim::MIGRATION_ALLOWED, "false", "a migration agent can read the guest's memory"),
        (claim::VMPL, "0", "the report comes from a privilege level below the guest's highest"),
    ];
    strong
        .into_iter()
        .filter(|(claim, strong, _)| is_weak(claim, strong))
        .filter(|(claim, ..)| {
            !met.iter().any(|result| result.claim == *claim && result.operator.is_equals())
        })
        .map(|(claim, _, words)| Weakness { claim, words })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use ah_release_api::policy::{Operator, Scalar};

    use super::*;

    /// `exists` and `less` are met by a debuggable guest too: whoever wrote them did not name one.
    #[test]
    fn attack_weak_guest_under_a_policy_that_only_mentions_the_claim() {
        let mut claims = Claims::default();
        claims.insert(claim::TEE, HARDWARE_TEE);
        claims.insert(claim::IS_DEBUGGABLE, false);
        claims.insert(claim::MIGRATION_ALLOWED, false);
        claims.insert(claim::VMPL, 1);
        let met = |operator, expected: Scalar| ConditionResult {
            claim: claim::VMPL.into(),
            operator,
            found: claims.find(claim::VMPL),
            expected,
        };
        let unnamed = |met| unnamed_weaknesses(&claims, &[met]).len();
        assert_eq!(unnamed(met(Operator::Equals, 1.into())), 0);
        assert_eq!(unnamed(met(Operator::Less, 2.into())), 1);
        assert_eq!(unnamed(met(Operator::Exists, true.into())), 1);
    }
}
