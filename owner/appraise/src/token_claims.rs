//! A verified report as the claims that release policies compare, under the names that Microsoft Azure Attestation gives them.

use ah_evidence::{SnpReport, Tee};
use ah_release_api::policy::{Claims, HARDWARE_TEE, SOFTWARE_TEE, claim};
use ah_verifier::{Chip, RevocationStatus, Verified};

/// What the report says. SVNs are those of REPORTED_TCB, which is what the certificate proves.
pub fn token_claims(report: &Verified<SnpReport>) -> Claims {
    let mut claims = Claims::default();
    origin(&mut claims, report);
    guest(&mut claims, report);
    let policy = report.policy;
    claims.insert(claim::IS_DEBUGGABLE, policy.debug_allowed());
    claims.insert(claim::MIGRATION_ALLOWED, policy.migration_allowed());
    claims.insert(claim::SMT_ALLOWED, policy.smt_allowed());
    claims.insert("x-ms-sevsnpvm-singlesocket", policy.single_socket());
    claims.insert("x-ms-sevsnpvm-cxl-allowed", policy.cxl_allowed());
    claims.insert("x-ms-sevsnpvm-mem-aes256-xts-required", policy.aes_256_xts_required());
    claims.insert("x-ms-sevsnpvm-rapl-disabled", policy.rapl_disabled());
    let hiding = policy.ciphertext_hiding_required();
    claims.insert("x-ms-sevsnpvm-ciphertext-hiding-dram-enabled", hiding);
    claims.insert("x-ms-sevsnpvm-page-swap-disabled", policy.page_swap_disabled());
    let tcb = report.tcb();
    claims.insert(claim::BOOTLOADER_SVN, u32::from(tcb.boot_loader));
    claims.insert(claim::TEE_SVN, u32::from(tcb.tee));
    claims.insert(claim::SNP_FIRMWARE_SVN, u32::from(tcb.snp));
    claims.insert(claim::MICROCODE_SVN, u32::from(tcb.microcode));
    claims
}

fn origin(claims: &mut Claims, report: &Verified<SnpReport>) {
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
    claims.insert(claim::CHIP_FAMILY, report.product().name());
    // A chip id that no certificate names is no claim about a chip.
    if let Chip::Identified(chip) = report.chip() {
        claims.insert(claim::CHIP_ID, chip.to_string());
    }
}

fn guest(claims: &mut Claims, report: &SnpReport) {
    claims.insert(claim::LAUNCH_MEASUREMENT, report.measurement.to_string());
    claims.insert(claim::HOST_DATA, report.host_data.to_string());
    claims.insert(claim::REPORT_DATA, report.report_data.to_string());
    claims.insert(claim::REPORT_ID, hex::encode(report.report_id));
    claims.insert(claim::VMPL, u32::from(report.vmpl));
    claims.insert(claim::GUEST_SVN, report.guest_svn);
    claims.insert(claim::FAMILY_ID, hex::encode(report.family_id));
    claims.insert(claim::IMAGE_ID, hex::encode(report.image_id));
    claims.insert(claim::ID_KEY_DIGEST, report.id_key_digest.to_string());
    claims.insert(claim::AUTHOR_KEY_DIGEST, report.author_key_digest.to_string());
}
