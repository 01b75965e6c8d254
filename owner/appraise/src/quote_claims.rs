//! A verified TDX quote as the claims that release policies compare, under the names that Microsoft Azure Attestation gives them.

use ah_release_api::policy::{Claims, TDX_VM, claim, quote_claim};
use ah_verifier::VerifiedQuote;

/// Claims of a TDX token, by MAA's names (eat profile `aka.ms/maa-eat-profile-tdxvm`). Numbers of the report that are sets of bits are hex
/// of their bytes as they stand in the report.
pub fn quote_token_claims(quote: &VerifiedQuote) -> Claims {
    let mut claims = Claims::default();
    claims.insert(claim::TEE, TDX_VM);
    claims.insert(claim::ATTESTATION_TYPE, TDX_VM);
    claims.insert("eat_profile", "https://aka.ms/maa-eat-profile-tdxvm");
    claims.insert("intuse", "generic");
    claims.insert(quote_claim::TCB_STATUS, quote.tcb_status().to_string());
    let debug = quote.td_attributes.debug();
    claims.insert("dbgstat", if debug { "enabled" } else { "disabled" });
    claims.insert("tdx_mrtd", quote.mr_td.to_string());
    claims.insert("tdx_mrconfigid", quote.mr_config_id.to_string());
    claims.insert("tdx_mrowner", quote.mr_owner.to_string());
    claims.insert("tdx_mrownerconfig", quote.mr_owner_config.to_string());
    claims.insert("tdx_mrseam", quote.mr_seam.to_string());
    claims.insert("tdx_mrsignerseam", quote.mr_signer_seam.to_string());
    let names = ["tdx_rtmr0", "tdx_rtmr1", "tdx_rtmr2", "tdx_rtmr3"];
    for (name, value) in names.into_iter().zip(&quote.rtmr) {
        claims.insert(name, value.to_string());
    }
    claims.insert("tdx_report_data", quote.report_data.to_string());
    claims.insert("tdx_seam_attributes", hex::encode(quote.seam_attributes.to_le_bytes()));
    claims.insert("tdx_tee_tcb_svn", hex::encode(quote.tee_tcb_svn));
    claims.insert("tdx_xfam", hex::encode(quote.xfam.to_le_bytes()));
    let attributes = quote.td_attributes;
    claims.insert("tdx_td_attributes", hex::encode(attributes.0.to_le_bytes()));
    claims.insert(quote_claim::DEBUG, debug);
    claims.insert(quote_claim::MIGRATABLE, quote.td_attributes.migratable());
    claims.insert("tdx_td_attributes_key_locker", attributes.key_locker());
    claims.insert("tdx_td_attributes_perfmon", attributes.perfmon());
    claims.insert("tdx_td_attributes_protection_keys", attributes.protection_keys());
    claims.insert("tdx_td_attributes_septve_disable", attributes.septve_disabled());
    claims
}
