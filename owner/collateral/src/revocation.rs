//! Revocation lists at an appraisal: which one is used, and what becomes of a report where none is fresh.
//!
//! A list that came with the evidence is the host's choice of how old it may be, so one's own come first. A list that cannot be read, is of
//! another root, or is too old counts as none; a certificate that a list of its root names is refused, however old the list is. Lists behind
//! the first fresh one are not looked at.

use std::time::{Duration, SystemTime};

use ah_evidence::{RawReport, SigningKey, SnpReport};
use ah_verifier::{
    Collateral, MAX_CRL_BYTES, Revocation, TrustedRoots, Verified, VerifyError, verify,
};

use crate::folder::{Folder, list_file};
use crate::kds::{ChainKind, products};

const DAY_S: u64 = 24 * 3600;

/// What becomes of a report without a fresh list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListNeed {
    /// Its claims say that nobody looked.
    #[default]
    Optional,
    /// It is refused.
    Required,
}

/// Which lists there are, and how fresh they have to be.
#[derive(Debug, Clone, Default)]
pub struct RevocationLists {
    /// A folder with lists of one's own.
    pub folder: Option<Folder>,
    /// Whether a report can do without.
    pub need: ListNeed,
    /// How long ago a list may have been issued, beside the end that it names itself.
    pub max_age: Option<Duration>,
}

/// Why a report is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The report, its chain, or that it was revoked.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// No list that is fresh.
    #[error("report's chain cannot be checked for revocation: {reason}")]
    NoList {
        /// Which lists there were, and what is wrong with each.
        reason: String,
    },
}

impl RevocationLists {
    /// [`verify`], with a list of one's own, or else the one in `collateral`.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn verify(
        &self,
        report: &RawReport,
        mut collateral: Collateral,
        now: SystemTime,
        roots: &TrustedRoots,
    ) -> Result<Verified<SnpReport>, CheckError> {
        let unseen = Revocation::NotChecked { reason: String::new() };
        let presented = std::mem::replace(&mut collateral.revocation, unseen);
        let mut reasons = Vec::new();
        let mut lists = self.own(report, &mut reasons)?;
        match presented {
            Revocation::List(list) => lists.push(("the evidence's list".to_owned(), list)),
            Revocation::NotChecked { reason } => reasons.push(reason),
        }
        for (name, list) in lists {
            collateral.revocation = Revocation::List(list);
            match verify(report, &collateral, now, roots) {
                Ok(verified) => match self.too_old(&verified) {
                    None => return Ok(verified),
                    Some(words) => reasons.push(format!("{name} {words}")),
                },
                Err(error) if is_about_list(&error) => reasons.push(format!("{name}: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        let reason = reasons.join("; ");
        collateral.revocation = Revocation::NotChecked { reason: reason.clone() };
        let verified = verify(report, &collateral, now, roots)?;
        match self.need {
            ListNeed::Optional => Ok(verified),
            ListNeed::Required => Err(CheckError::NoList { reason }),
        }
    }

    /// The folder's lists for the product lines that the report may be of.
    fn own(
        &self,
        report: &RawReport,
        reasons: &mut Vec<String>,
    ) -> Result<Vec<(String, Vec<u8>)>, CheckError> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let report = SnpReport::parse(report).map_err(VerifyError::Report)?;
        let kind = match report.key_info.signing_key {
            SigningKey::Vlek => ChainKind::Vlek,
            SigningKey::Vcek | SigningKey::None => ChainKind::Vcek,
        };
        let mut lists = Vec::new();
        // Of an unknown processor there is no list, and no root either.
        for product in products(&report).unwrap_or_default() {
            let name = list_file(product, kind);
            match folder.read(&name, MAX_CRL_BYTES) {
                Ok(Some(list)) => lists.push((name, list)),
                Ok(None) => reasons.push(format!("there is no {name}")),
                Err(error) => reasons.push(format!("{name}: {error}")),
            }
        }
        Ok(lists)
    }

    fn too_old(&self, verified: &Verified<SnpReport>) -> Option<String> {
        let (age, max_age) = (verified.revocation_list_age()?, self.max_age?);
        let days = |time: Duration| time.as_secs() / DAY_S;
        (age > max_age)
            .then(|| format!("is {} days old, expected at most {}", days(age), days(max_age)))
    }
}

fn is_about_list(error: &VerifyError) -> bool {
    matches!(
        error,
        VerifyError::Crl(_)
            | VerifyError::CrlForm { .. }
            | VerifyError::CrlSignature
            | VerifyError::CrlStale
            | VerifyError::TooLarge { what: "revocation list", .. }
    )
}
