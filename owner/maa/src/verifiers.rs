//! The two traits of the service, filled by this project's own verifiers.

use std::time::SystemTime;

use ah_evidence::{RawQuote, SnpReport};
use ah_reference::{UvmIssuer, verify_uvm};
use ah_release_api::policy::{Claims, claim};
use ah_verifier::{QuoteCollateral, TcbStatus, Verified, verify_quote};

use crate::service::{EndorsementVerifier, QuoteVerifier, VerifiedQuote};

/// Believes UVM endorsements of the issuers that it is told.
#[derive(Debug, Clone)]
pub struct UvmVerifier {
    issuers: Vec<(UvmIssuer, String)>,
}

impl UvmVerifier {
    /// Issuers with the value of `x-ms-compliance-status` that each stands for.
    pub fn new(issuers: Vec<(UvmIssuer, String)>) -> Self {
        Self { issuers }
    }

    /// Azure's two issuers, with the values that MAA gives.
    pub fn azure(minimum_svn: u64) -> Self {
        let instances = UvmIssuer::azure_container_instances(minimum_svn)
            .map(|issuer| (issuer, "azure-compliant-uvm".to_owned()));
        let pods = UvmIssuer::azure_kubernetes(minimum_svn)
            .map(|issuer| (issuer, "azure-signed-katacc-uvm".to_owned()));
        Self::new(instances.into_iter().chain(pods).collect())
    }
}

impl EndorsementVerifier for UvmVerifier {
    /// Every document has to verify, and one of them has to endorse the report's measurement.
    fn verify(
        &self,
        documents: &[Vec<u8>],
        report: &Verified<SnpReport>,
        now: SystemTime,
    ) -> Result<String, String> {
        let trusted: Vec<UvmIssuer> = self.issuers.iter().map(|(one, _)| one.clone()).collect();
        let mut endorsed = Vec::new();
        for document in documents {
            let found = verify_uvm(document, &trusted, now).map_err(|error| error.to_string())?;
            if found.measurement() == report.measurement {
                let status = self.issuers.iter().find(|(issuer, _)| {
                    issuer.did == *found.issuer() && issuer.feed == found.feed()
                });
                return status.map(|(_, status)| status.clone()).ok_or_else(String::new);
            }
            endorsed.push(found.measurement().to_string());
        }
        let (found, expected) = (endorsed.join(", "), report.measurement);
        Err(format!("they endorse measurement {found}, expected {expected}"))
    }
}

/// Where a quote's collateral comes from.
pub type QuoteCollateralSource =
    Box<dyn Fn(&RawQuote) -> Result<QuoteCollateral, String> + Send + Sync>;

/// Verifies TDX quotes by Intel's collateral.
pub struct TdxVerifier {
    collateral: QuoteCollateralSource,
}

impl TdxVerifier {
    /// A verifier that asks `collateral` for each quote.
    pub fn new(collateral: QuoteCollateralSource) -> Self {
        Self { collateral }
    }
}

impl QuoteVerifier for TdxVerifier {
    fn verify(&self, quote: &[u8], now: SystemTime) -> Result<VerifiedQuote, String> {
        let raw = RawQuote::parse(quote).map_err(|error| error.to_string())?;
        let collateral = (self.collateral)(&raw)?;
        let quote =
            verify_quote(&raw, &collateral, now).map_err(|error| crate::error::chain(&error))?;
        if quote.tcb_status() == TcbStatus::Revoked {
            return Err("the platform's keys are revoked".to_owned());
        }
        Ok(VerifiedQuote { report_data: quote.report_data, claims: claims(&quote).into_json() })
    }
}

/// Claims of a TDX token, by MAA's names (eat profile `aka.ms/maa-eat-profile-tdxvm`). Numbers of the report that are sets of bits are hex
/// of their bytes as they stand in the report.
fn claims(quote: &ah_verifier::VerifiedQuote) -> Claims {
    let mut claims = Claims::default();
    claims.insert(claim::TEE, "tdxvm");
    claims.insert(claim::ATTESTATION_TYPE, "tdxvm");
    claims.insert("eat_profile", "https://aka.ms/maa-eat-profile-tdxvm");
    claims.insert("intuse", "generic");
    claims.insert("attester_tcb_status", quote.tcb_status().to_string());
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
    claims.insert("tdx_td_attributes_debug", debug);
    claims.insert("tdx_td_attributes_key_locker", attributes.key_locker());
    claims.insert("tdx_td_attributes_perfmon", attributes.perfmon());
    claims.insert("tdx_td_attributes_protection_keys", attributes.protection_keys());
    claims.insert("tdx_td_attributes_septve_disable", attributes.septve_disabled());
    claims
}
