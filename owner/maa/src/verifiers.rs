//! The two traits of the service, filled by this project's own verifiers.

use std::sync::Arc;
use std::time::SystemTime;

use ah_appraise::quote_token_claims;
use ah_evidence::{RawQuote, SnpReport};
use ah_reference::{UvmIssuer, verify_uvm};
use ah_verifier::{QuoteCollateral, TcbStatus, Verified, verify_quote_by_any};

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

/// Where the collateral of quotes comes from: one document for each kind of platform.
pub type QuoteCollateralSource =
    Box<dyn Fn() -> Result<Arc<Vec<QuoteCollateral>>, String> + Send + Sync>;

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
        let collateral = (self.collateral)()?;
        let quote = verify_quote_by_any(&raw, &collateral, now)
            .map_err(|error| crate::error::chain(&error))?;
        if quote.tcb_status() == TcbStatus::Revoked {
            return Err("the platform's keys are revoked".to_owned());
        }
        Ok(VerifiedQuote {
            report_data: quote.report_data,
            claims: quote_token_claims(&quote).into_json(),
        })
    }
}
