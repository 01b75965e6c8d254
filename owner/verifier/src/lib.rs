//! verify(bytes, collateral, now) -> Verified<Report>; pure.
//!
//! A report is believed when its signature leads, certificate by certificate, to a pinned root of AMD, and when report and
//! certificates say the same of the machine. What the report says of the guest is then for `ah_appraise` to judge.
//!
//! | checked here | against |
//! |---|---|
//! | form of the report, every reserved byte | AMD's ABI specification |
//! | root | pinned, byte by byte |
//! | intermediate, endorsement key | names, validity at `now`, RSA-PSS signatures, key kinds, extensions unique and complete |
//! | revocation list, if there is one | signed by the root, fresh, intermediate not on it |
//! | signature of the report | R and S in range, ECDSA P-384 |
//! | SIGNING_KEY, REPORTED_TCB, CHIP_ID, CPUID | kind, TCB, hwID and product line of the certificates |
//! | REPORTED_TCB, COMMITTED_TCB | not above CURRENT_TCB |
//!
//! TDX quotes go through [`verify_quote`]. Every error has a [`VerifyError::check`]: the stable name of the check it comes from.
#![forbid(unsafe_code)]

mod certificate;
mod check;
mod collateral;
mod crl;
pub mod danger;
mod endorsement;
mod error;
mod quote;
mod report;
mod roots;
mod token;
mod verified;

pub use collateral::{Collateral, MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES, Revocation};
pub use endorsement::{EndorsementFacts, endorsement_facts};
pub use error::{Blame, Role, VerifyError};
pub use quote::{
    MAX_QUOTE_COLLATERAL_BYTES, QuoteCollateral, QuoteError, TcbStatus, VerifiedQuote,
    verify_quote, verify_quote_by_any,
};
pub use roots::{Root, TrustedRoots};
pub use token::{
    MAX_JWKS_BYTES, MAX_TOKEN_BYTES, TokenError, TokenKeys, VerifiedToken, verify_token,
};
pub use verified::{Chip, RevocationStatus, Verified};

use std::time::SystemTime;

use ah_evidence::{RawReport, SnpReport};

use certificate::Certificate;
use endorsement::Endorsement;

/// Verifies that `raw` was signed by a genuine processor of a trusted root. No I/O, no clock: `now` is the caller's.
///
/// # Errors
/// [`VerifyError`], a variant per cause; the first that is found.
pub fn verify(
    raw: &RawReport,
    collateral: &Collateral,
    now: SystemTime,
    roots: &TrustedRoots,
) -> Result<Verified<SnpReport>, VerifyError> {
    let report = SnpReport::parse(raw).map_err(VerifyError::Report)?;
    let trusted = roots.find(&collateral.root)?;
    let root = trusted.certificate();
    root.check_validity(Role::Root, now)?;
    let intermediate = Certificate::parse(Role::Intermediate, &collateral.intermediate)?;
    let kind = trusted.check_intermediate(&intermediate, now)?;
    let revocation = crl::check(&collateral.revocation, root, &intermediate, now)?;
    let certificate = Certificate::parse(Role::Endorsement, &collateral.endorsement)?;
    let endorsement =
        Endorsement::check(&certificate, &intermediate, kind, trusted.product(), now)?;
    let chip = report::check(&report, raw, &endorsement)?;
    Ok(Verified::new(report, trusted.root(), endorsement, chip, revocation))
}
