//! A verified TDX quote as the claims that release policies compare, under the names that Microsoft Azure Attestation gives them.

use ah_evidence::{TdAttributes, TdxExtension, Tee};
use ah_release_api::policy::{Claims, SOFTWARE_TEE, TDX_VM, claim, quote_claim};
use ah_verifier::VerifiedQuote;

/// Claims of a TDX token, by MAA's names (eat profile `aka.ms/maa-eat-profile-tdxvm`). Numbers of the report that are sets of bits are hex
/// of their bytes as they stand in the report.
pub fn quote_token_claims(quote: &VerifiedQuote) -> Claims {
    let mut claims = Claims::default();
    claims.insert(claim::TEE, if quote.tee() == Tee::Tdx { TDX_VM } else { SOFTWARE_TEE });
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
    insert_attributes(&mut claims, quote.td_attributes);
    insert_service_td(&mut claims, quote.extension.as_ref());
    claims
}

fn insert_attributes(claims: &mut Claims, attributes: TdAttributes) {
    let bytes = |bits: u64| hex::encode(bits.to_le_bytes());
    claims.insert(quote_claim::ATTRIBUTES, bytes(attributes.0));
    claims.insert(quote_claim::DEBUG, attributes.debug());
    claims.insert(quote_claim::MIGRATABLE, attributes.migratable());
    claims.insert(quote_claim::OTHER_ATTRIBUTES, bytes(attributes.other()));
    claims.insert("tdx_td_attributes_key_locker", attributes.key_locker());
    claims.insert("tdx_td_attributes_perfmon", attributes.perfmon());
    claims.insert("tdx_td_attributes_protection_keys", attributes.protection_keys());
    claims.insert("tdx_td_attributes_septve_disable", attributes.septve_disabled());
}

fn insert_service_td(claims: &mut Claims, extension: Option<&TdxExtension>) {
    let service_td = extension.map(|extension| extension.mr_service_td.to_string());
    let none = || quote_claim::NO_SERVICE_TD.to_owned();
    claims.insert(quote_claim::SERVICE_TD, service_td.unwrap_or_else(none));
}

#[cfg(test)]
mod tests {
    use ah_digest::Sha384;

    use super::*;

    /// Each bit of TDATTRIBUTES is in a claim that says so: none is left over for a host to use unseen.
    #[test]
    fn attack_attribute_bit_that_no_claim_shows() {
        let of = |bits| {
            let mut claims = Claims::default();
            insert_attributes(&mut claims, TdAttributes(bits));
            claims
        };
        let sound = of(0);
        let other = |claims: &Claims| claims.find(quote_claim::OTHER_ATTRIBUTES).unwrap();
        assert_eq!(other(&sound).to_string(), quote_claim::NO_ATTRIBUTES);
        for bit in 0..64 {
            let names: Vec<_> = of(1 << bit)
                .into_json()
                .into_iter()
                .filter(|(name, value)| sound.as_json().get(name) != Some(value))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(names.len(), 2, "bit {bit}: {names:?}, the bits as they are and one claim");
        }
        assert_eq!(other(&of(1 << 4)).to_string(), "1000000000000000");
        assert_eq!(other(&of(1 << 28)).to_string(), quote_claim::NO_ATTRIBUTES);
    }

    #[test]
    fn attack_service_guest_that_no_claim_shows() {
        let of = |extension: Option<&TdxExtension>| {
            let mut claims = Claims::default();
            insert_service_td(&mut claims, extension);
            claims.find(quote_claim::SERVICE_TD).unwrap().to_string()
        };
        let bound = |byte| {
            let mut digest = [0; 48];
            digest[47] = byte;
            TdxExtension { tee_tcb_svn2: [1; 16], mr_service_td: Sha384::new(digest) }
        };
        assert_eq!(of(None), quote_claim::NO_SERVICE_TD);
        assert_eq!(of(Some(&bound(0))), quote_claim::NO_SERVICE_TD);
        assert_eq!(of(Some(&bound(1))), format!("{}01", "0".repeat(94)));
    }
}
