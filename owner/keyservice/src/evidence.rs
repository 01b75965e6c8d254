//! Evidence of a guest, whatever its TEE, to what is proven of it.

use std::time::SystemTime;

use ah_appraise::{quote_token_claims, token_claims};
use ah_collateral::CheckError;
use ah_evidence::{
    CertKind, CertTable, Evidence, RawQuote, RawReport, ReportData, SigningKey, SnpReport, Tee,
};
use ah_release_api::policy::Claims;
use ah_release_api::{Refusal, RefusedBy};
use ah_verifier::{Collateral, Revocation, TcbStatus, VerifyError, verify_quote_by_any};

use crate::release::Refused;
use crate::service::KeyService;

/// What is proven of a guest.
pub(crate) struct Guest {
    /// What the report binds.
    pub(crate) report_data: ReportData,
    /// All of it, by the names that policies use.
    pub(crate) claims: Claims,
}

impl KeyService {
    pub(crate) fn verify(&self, evidence: &Evidence, now: SystemTime) -> Result<Guest, Refused> {
        match evidence.tdx_quote().map_err(|error| refused(&error))? {
            Some(quote) => self.verify_quote(&quote, now),
            None => self.verify_report(evidence, now),
        }
    }

    fn verify_report(&self, evidence: &Evidence, now: SystemTime) -> Result<Guest, Refused> {
        let raw = evidence.snp_report().map_err(|error| refused(&error))?;
        let table = CertTable::decode(&evidence.auxblob).map_err(|error| refused(&error))?;
        let collateral = collateral(&raw, &table)?;
        let report = self
            .lists()
            .verify(&raw, collateral, now, self.roots())
            .map_err(|error| refused_report(&error))?;
        check_label(evidence.tee, report.tee())?;
        Ok(Guest { report_data: report.report_data, claims: token_claims(&report) })
    }

    /// The collateral is this service's own: what comes with a quote is the host's choice of how old it may be. There is no label to check: it said
    /// that this is a quote at all, and of whose root it is only the claims speak.
    fn verify_quote(&self, quote: &RawQuote, now: SystemTime) -> Result<Guest, Refused> {
        let Some(source) = self.quotes() else {
            let words = "this service verifies no TDX quotes, for it has no collateral of Intel's; its operator names a folder with it in tdx.collateral";
            return Err(Refused::new(RefusedBy::Verifier, words));
        };
        let documents = source().map_err(|words| Refused {
            told: Refusal::new(RefusedBy::Service, "collateral of TDX quotes cannot be read"),
            reasons: vec![words],
        })?;
        let quote = verify_quote_by_any(quote, &documents, now).map_err(|error| refused(&error))?;
        if quote.tcb_status() == TcbStatus::Revoked {
            let words = "the platform's keys are revoked";
            return Err(Refused::new(RefusedBy::Verifier, words));
        }
        Ok(Guest { report_data: quote.report_data, claims: quote_token_claims(&quote) })
    }
}

/// The label of a report decides nothing, and one that lies would deceive whoever reads it.
fn check_label(label: Tee, root: Tee) -> Result<(), Refused> {
    match label == root {
        true => Ok(()),
        false => {
            let words = format!("evidence is labelled {label}, but its root is of {root}");
            Err(Refused::new(RefusedBy::Verifier, words))
        }
    }
}

fn refused(error: &dyn std::error::Error) -> Refused {
    Refused::of(RefusedBy::Verifier, error)
}

/// Which root is found is useful to both sides: it is what an owner has to decide on.
fn refused_report(error: &CheckError) -> Refused {
    let mut refused = Refused::of(RefusedBy::Verifier, error);
    if let CheckError::Verify(error @ VerifyError::UntrustedRoot { .. }) = error {
        let told = format!("{error}; expected a root of AMD's");
        refused.told = Refusal::new(RefusedBy::Verifier, &told);
    }
    refused
}

/// The certificates that came with the report. All of them are the host's word, until the verifier has followed them to a root.
fn collateral(raw: &RawReport, table: &CertTable) -> Result<Collateral, Refused> {
    let report = SnpReport::parse(raw).map_err(|error| Refused::of(RefusedBy::Verifier, &error))?;
    let kind = match report.key_info.signing_key {
        SigningKey::Vlek => CertKind::Vlek,
        SigningKey::Vcek | SigningKey::None => CertKind::Vcek,
    };
    let find = |kind: CertKind| {
        table.certificate(kind).map(<[u8]>::to_vec).ok_or_else(|| {
            let words = format!(
                "evidence carries no {kind:?} certificate, expected one in its certificate table"
            );
            Refused::new(RefusedBy::Verifier, words)
        })
    };
    let revocation = match table.certificate(CertKind::Crl) {
        Some(list) => Revocation::List(list.to_vec()),
        None => Revocation::NotChecked { reason: "evidence carries no revocation list".to_owned() },
    };
    Ok(Collateral {
        endorsement: find(kind)?,
        intermediate: find(CertKind::Ask)?,
        root: find(CertKind::Ark)?,
        revocation,
    })
}
