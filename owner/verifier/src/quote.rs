//! TDX quotes: the signatures, Intel's certificates, lists and TCB levels are dcap-qvl's work; what is trusted and what comes
//! of it is decided here.
//!
//! | checked | against |
//! |---|---|
//! | quote signature, quoting enclave's report and signature | attestation key, PCK certificate |
//! | PCK certificate, TCB info, QE identity, both revocation lists | Intel's root, pinned; validity and freshness at `now` |
//! | TCB levels of platform, TDX module and quoting enclave | TCB info and QE identity; the result is a status, for `ah_appraise` |
//! | quote and TD report | read twice, by two parsers that have to agree |

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_evidence::{RawQuote, TdxReportView, Tee};
use dcap_qvl::policy::{Policy, QuoteClaims};
use dcap_qvl::quote::Report;
use dcap_qvl::tcb_info::TcbStatus as LibraryStatus;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, configs};
use serde::{Deserialize, Serialize};

/// Largest collateral document of a quote, bytes.
pub const MAX_QUOTE_COLLATERAL_BYTES: usize = 1024 * 1024;

/// Kind of the attestation key: ECDSA on P-256.
const ECDSA_P256: u16 = 2;

/// Certificates, revocation lists, TCB info and QE identity for one platform, as one JSON document (the form that dcap-qvl
/// writes: PEM chains as text, lists and signatures in hex, TCB info and QE identity as the very text that Intel signed).
#[derive(Debug, Clone)]
pub struct QuoteCollateral {
    document: QuoteCollateralV3,
    /// A root in the place of Intel's, DER.
    software_root: Option<Vec<u8>>,
}

/// Why a quote is not believed.
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    /// The collateral is larger than such documents are.
    #[error("quote collateral has {found} bytes, expected at most {MAX_QUOTE_COLLATERAL_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// The collateral is not the JSON document that is expected.
    #[error("quote collateral is not the expected json document")]
    Collateral(#[source] serde_json::Error),
    /// Signed by a kind of key that nothing is known about.
    #[error("quote's attestation key is of type {found}, expected 2 (ecdsa p-256)")]
    KeyType {
        /// Kind found.
        found: u16,
    },
    /// A signature, certificate, list, TCB info or QE identity is not right, or not of this quote.
    #[error("quote does not verify: {reason}")]
    Refused {
        /// The library's words, innermost cause last.
        reason: String,
    },
    /// The two parsers read different things.
    #[error("quote is read in two ways: its {field} differs")]
    Ambiguous {
        /// Which field.
        field: &'static str,
    },
}

impl QuoteError {
    /// Name of the check that was not passed.
    pub fn check(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "collateral.size",
            Self::Collateral(_) => "collateral.encoding",
            Self::KeyType { .. } => "quote.key_type",
            Self::Refused { .. } => "quote.chain",
            Self::Ambiguous { .. } => "quote.encoding",
        }
    }
}

/// How Intel rates the versions of a platform, by the TCB info and QE identity that were at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing newer is known.
    UpToDate,
    /// Up to date if the guest's software is hardened.
    SWHardeningNeeded,
    /// Up to date if the platform is configured so.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// The platform was updated under the running guest, which should be launched again.
    TDRelaunchAdvised,
    /// The same, and a configuration is needed.
    TDRelaunchAdvisedConfigurationNeeded,
    /// Known attacks are not stopped.
    OutOfDate,
    /// The same, and a configuration is needed.
    OutOfDateConfigurationNeeded,
    /// The keys are no longer believed.
    Revoked,
}

impl From<LibraryStatus> for TcbStatus {
    fn from(status: LibraryStatus) -> Self {
        use LibraryStatus as L;
        match status {
            L::UpToDate => Self::UpToDate,
            L::SWHardeningNeeded => Self::SWHardeningNeeded,
            L::ConfigurationNeeded => Self::ConfigurationNeeded,
            L::ConfigurationAndSWHardeningNeeded => Self::ConfigurationAndSWHardeningNeeded,
            L::TDRelaunchAdvised => Self::TDRelaunchAdvised,
            L::TDRelaunchAdvisedConfigurationNeeded => Self::TDRelaunchAdvisedConfigurationNeeded,
            L::OutOfDate => Self::OutOfDate,
            L::OutOfDateConfigurationNeeded => Self::OutOfDateConfigurationNeeded,
            L::Revoked => Self::Revoked,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A quote that Intel's root vouches for, with what Intel says of its platform. Only [`verify_quote`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedQuote {
    report: TdxReportView,
    version: u16,
    tcb_status: TcbStatus,
    advisories: Vec<String>,
    tcb_evaluation: u32,
    fmspc: [u8; 6],
    collateral_expires: SystemTime,
    tee: Tee,
}

impl VerifiedQuote {
    /// What the guest runs in, by the root and nothing else.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Version of the quote, 4 or 5.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Rating of platform, TDX module and quoting enclave together.
    pub fn tcb_status(&self) -> TcbStatus {
        self.tcb_status
    }

    /// Intel's security advisories that the versions found are open to, sorted.
    pub fn advisories(&self) -> &[String] {
        &self.advisories
    }

    /// Number of the rating: the lower of those of TCB info and QE identity.
    pub fn tcb_evaluation(&self) -> u32 {
        self.tcb_evaluation
    }

    /// FMSPC of the PCK certificate.
    pub fn fmspc(&self) -> [u8; 6] {
        self.fmspc
    }

    /// When the first part of the collateral expires.
    pub fn collateral_expires(&self) -> SystemTime {
        self.collateral_expires
    }
}

impl Deref for VerifiedQuote {
    type Target = TdxReportView;

    fn deref(&self) -> &TdxReportView {
        &self.report
    }
}

impl QuoteCollateral {
    /// Reads the document.
    ///
    /// # Errors
    /// [`QuoteError::TooLarge`], [`QuoteError::Collateral`].
    pub fn from_json(json: &[u8]) -> Result<Self, QuoteError> {
        if json.len() > MAX_QUOTE_COLLATERAL_BYTES {
            return Err(QuoteError::TooLarge { found: json.len() });
        }
        let document = serde_json::from_slice(json).map_err(QuoteError::Collateral)?;
        Ok(Self { document, software_root: None })
    }

    pub(crate) fn under_software_root(self, der: &[u8]) -> Self {
        Self { software_root: Some(der.to_vec()), ..self }
    }

    /// FMSPC of the platforms that the TCB info in it says it is for, 12 hex digits in lower case; None if it says none.
    pub fn fmspc(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct TcbInfo {
            fmspc: String,
        }
        let info: TcbInfo = serde_json::from_str(&self.document.tcb_info).ok()?;
        let fits =
            info.fmspc.len() == 12 && info.fmspc.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| info.fmspc.to_lowercase())
    }
}

/// The library's own appraisal is not used: `ah_appraise` names each claim.
struct NoPolicy;

impl Policy for NoPolicy {
    fn validate(&self, _: &QuoteClaims) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Verifies that `quote` was made on a genuine platform of Intel's. No I/O, no clock: `now` is the caller's.
///
/// # Errors
/// [`QuoteError`].
pub fn verify_quote(
    quote: &RawQuote,
    collateral: &QuoteCollateral,
    now: SystemTime,
) -> Result<VerifiedQuote, QuoteError> {
    let view = quote.view();
    if view.attestation_key_type != ECDSA_P256 {
        return Err(QuoteError::KeyType { found: view.attestation_key_type });
    }
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (verifier, tee) = match &collateral.software_root {
        None => (QuoteVerifier::new_prod(), Tee::Tdx),
        Some(root) => (QuoteVerifier::new(root.clone()), Tee::Software),
    };
    // Debug and service guests are for appraisal to refuse, by name.
    let verifier =
        verifier.with_config::<configs::RingConfig>().allow_debug(true).allow_service_td(true);
    let claims = verifier
        .verify_with_policy(quote.as_bytes(), &collateral.document, seconds, &NoPolicy)
        .map_err(|error| QuoteError::Refused { reason: format!("{error:#}") })?;
    check_agreement(&claims, &view.report)?;
    let mut advisories = claims.tcb.advisory_ids;
    advisories.sort();
    advisories.dedup();
    Ok(VerifiedQuote {
        report: view.report.clone(),
        version: view.version,
        tcb_status: claims.tcb.status.into(),
        advisories,
        tcb_evaluation: claims.tcb.eval_data_number,
        fmspc: claims.platform.pck.fmspc,
        collateral_expires: UNIX_EPOCH + Duration::from_secs(claims.earliest_expiration_date),
        tee,
    })
}

/// The same with documents for several kinds of platforms. The last refusal is told, for all are about another platform or about the quote.
///
/// # Errors
/// [`QuoteError`]; [`QuoteError::Refused`] where there is no document.
pub fn verify_quote_by_any(
    quote: &RawQuote,
    documents: &[QuoteCollateral],
    now: SystemTime,
) -> Result<VerifiedQuote, QuoteError> {
    let mut last = Err(QuoteError::Refused { reason: "there is no collateral".to_owned() });
    for document in documents {
        last = verify_quote(quote, document, now);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// The library verified the bytes; the view was read from the same bytes by our own parser.
fn check_agreement(claims: &QuoteClaims, view: &TdxReportView) -> Result<(), QuoteError> {
    let differs = |field| Err(QuoteError::Ambiguous { field });
    let report = match &claims.report {
        Report::TD10(report) => report,
        Report::TD15(report) => &report.base,
        _ => return differs("body type"),
    };
    let digests = [
        ("mrseam", &report.mr_seam, &view.mr_seam),
        ("mrsignerseam", &report.mr_signer_seam, &view.mr_signer_seam),
        ("mrtd", &report.mr_td, &view.mr_td),
        ("mrconfigid", &report.mr_config_id, &view.mr_config_id),
        ("mrowner", &report.mr_owner, &view.mr_owner),
        ("mrownerconfig", &report.mr_owner_config, &view.mr_owner_config),
    ];
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &view.rtmr;
    let runtime = [
        ("rtmr0", &report.rt_mr0, rtmr0),
        ("rtmr1", &report.rt_mr1, rtmr1),
        ("rtmr2", &report.rt_mr2, rtmr2),
        ("rtmr3", &report.rt_mr3, rtmr3),
    ];
    let all = digests.into_iter().chain(runtime);
    if let Some((field, ..)) = all.into_iter().find(|(_, found, seen)| *found != seen.as_bytes()) {
        return differs(field);
    }
    let numbers = [
        ("seam attributes", report.seam_attributes, view.seam_attributes),
        ("td attributes", report.td_attributes, view.td_attributes.0),
        ("xfam", report.xfam, view.xfam),
    ];
    if let Some((field, ..)) =
        numbers.into_iter().find(|(_, found, seen)| *found != seen.to_le_bytes())
    {
        return differs(field);
    }
    if report.tee_tcb_svn != view.tee_tcb_svn {
        return differs("tee tcb svn");
    }
    if report.report_data != *view.report_data.as_bytes() {
        return differs("report data");
    }
    match (&claims.report, &view.extension) {
        (Report::TD10(_), None) => Ok(()),
        (Report::TD15(found), Some(seen))
            if found.tee_tcb_svn2 == seen.tee_tcb_svn2
                && found.mr_service_td == *seen.mr_service_td.as_bytes() =>
        {
            Ok(())
        }
        _ => differs("extension"),
    }
}
