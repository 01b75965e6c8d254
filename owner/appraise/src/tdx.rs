//! TDX: the same shape as for SNP reports, with the fields of a TD report.

use std::collections::BTreeSet;

use ah_digest::{Digest, Sha384};
use ah_evidence::{ReportData, TdAttributes};
use ah_verifier::{TcbStatus, VerifiedQuote};
use serde::{Deserialize, Serialize};

use crate::appraisal::Appraisal;
use crate::claims::{Claims, at_least, list, map};
use crate::reference::{Allowance, Expect, Requirement};

/// Everything that an appraisal of a quote looks at. An empty set is met by nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReferenceValues {
    /// Ratings of Intel's that will do.
    pub tcb_status: Expect<BTreeSet<TcbStatus>>,
    /// Advisories, of which the platform must be open to none.
    pub refused_advisories: Expect<BTreeSet<String>>,
    /// Least number of Intel's rating: what an old TCB info does not know, it does not rate.
    pub minimum_tcb_evaluation: Expect<u32>,
    /// Least TEE_TCB_SVN, byte by byte.
    pub minimum_tee_tcb_svn: Expect<Digest<16>>,
    /// FMSPC: kinds of platforms.
    pub fmspc: Expect<BTreeSet<Digest<6>>>,
    /// MRSEAM.
    pub mr_seam: Expect<BTreeSet<Sha384>>,
    /// MRSIGNERSEAM.
    pub mr_signer_seam: Expect<BTreeSet<Sha384>>,
    /// MRTD.
    pub mr_td: Expect<BTreeSet<Sha384>>,
    /// MRCONFIGID.
    pub mr_config_id: Expect<BTreeSet<Sha384>>,
    /// MROWNER.
    pub mr_owner: Expect<BTreeSet<Sha384>>,
    /// MROWNERCONFIG.
    pub mr_owner_config: Expect<BTreeSet<Sha384>>,
    /// RTMR0 to RTMR3.
    pub rtmr: [Expect<BTreeSet<Sha384>>; 4],
    /// REPORTDATA.
    pub report_data: Expect<ReportData>,
    /// TDATTRIBUTES.
    pub attributes: Expect<TdAttributesRule>,
    /// MRSERVICETD; quotes of TDX 1.0 have none, which counts as zero.
    pub service_td: Expect<BTreeSet<Sha384>>,
}

/// What TDATTRIBUTES may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TdAttributesRule {
    /// The host reads and writes guest memory.
    pub debug: Allowance,
    /// A migration service moves the guest.
    pub migratable: Allowance,
    /// No exceptions in the guest for pages that the host took away.
    pub septve_disabled: Requirement,
    /// Performance counters.
    pub perfmon: Allowance,
    /// Key Locker.
    pub key_locker: Allowance,
    /// Supervisor protection keys.
    pub protection_keys: Allowance,
    /// Bits without a meaning here.
    pub other: Allowance,
}

impl TdAttributesRule {
    /// No debugging, no migration, no unknown bits; pages that the host takes away stop the guest.
    pub const STRICT: Self = Self {
        debug: Allowance::Refused,
        migratable: Allowance::Refused,
        septve_disabled: Requirement::Required,
        perfmon: Allowance::Allowed,
        key_locker: Allowance::Allowed,
        protection_keys: Allowance::Allowed,
        other: Allowance::Refused,
    };
}

/// [`TdAttributesRule::STRICT`].
impl Default for TdAttributesRule {
    fn default() -> Self {
        Self::STRICT
    }
}

impl TdxReferenceValues {
    /// [`TdAttributesRule::STRICT`] on an up-to-date platform with Intel's own module and without service guests, binding
    /// `report_data`; everything else waived for `reason`.
    pub fn strict(report_data: Expect<ReportData>, reason: &str) -> Self {
        let zero = || Expect::Is([Sha384::new([0; 48])].into());
        Self {
            tcb_status: Expect::Is([TcbStatus::UpToDate].into()),
            refused_advisories: Expect::any(reason),
            minimum_tcb_evaluation: Expect::any(reason),
            minimum_tee_tcb_svn: Expect::any(reason),
            fmspc: Expect::any(reason),
            mr_seam: Expect::any(reason),
            mr_signer_seam: zero(),
            mr_td: Expect::any(reason),
            mr_config_id: Expect::any(reason),
            mr_owner: Expect::any(reason),
            mr_owner_config: Expect::any(reason),
            rtmr: std::array::from_fn(|_| Expect::any(reason)),
            report_data,
            attributes: Expect::Is(TdAttributesRule::STRICT),
            service_td: zero(),
        }
    }
}

/// Compares a verified quote with everything that is expected of it.
pub fn appraise_quote(quote: &VerifiedQuote, reference: &TdxReferenceValues) -> Appraisal {
    let mut claims = Claims(Vec::new());
    platform(&mut claims, quote, reference);
    guest(&mut claims, quote, reference);
    attributes(&mut claims, quote.td_attributes, &reference.attributes);
    let service = quote.extension.as_ref().map(|extension| extension.mr_service_td);
    let service = service.unwrap_or(Sha384::new([0; 48]));
    claims.one_of("service td", service, &reference.service_td);
    Appraisal { tee: quote.tee(), claims: claims.0 }
}

fn platform(claims: &mut Claims, quote: &VerifiedQuote, reference: &TdxReferenceValues) {
    claims.one_of("tcb status", quote.tcb_status(), &reference.tcb_status);
    let open_to = quote.advisories();
    let text = if open_to.is_empty() { "none".to_owned() } else { open_to.join(", ") };
    let none_of = |refused: &BTreeSet<String>| format!("none of {}", list(refused));
    claims.check("advisories", text, &reference.refused_advisories, none_of, |refused| {
        !open_to.iter().any(|advisory| refused.contains(advisory))
    });
    let number = quote.tcb_evaluation();
    let text = |least: u32| least.to_string();
    let expect = &reference.minimum_tcb_evaluation;
    claims.check("tcb evaluation", number, expect, at_least(text), |least| number >= *least);
    let svn = Digest::<16>::new(quote.tee_tcb_svn);
    let describe = |least: &Digest<16>| format!("no byte below {least}");
    claims.check("tee tcb svn", svn, &reference.minimum_tee_tcb_svn, describe, |least| {
        svn.as_bytes().iter().zip(least.as_bytes()).all(|(found, least)| found >= least)
    });
    claims.one_of("fmspc", Digest::<6>::new(quote.fmspc()), &reference.fmspc);
    claims.one_of("mr seam", quote.mr_seam, &reference.mr_seam);
    claims.one_of("mr signer seam", quote.mr_signer_seam, &reference.mr_signer_seam);
}

fn guest(claims: &mut Claims, quote: &VerifiedQuote, reference: &TdxReferenceValues) {
    const RTMR: [&str; 4] = ["rtmr 0", "rtmr 1", "rtmr 2", "rtmr 3"];
    claims.one_of("mr td", quote.mr_td, &reference.mr_td);
    claims.one_of("mr config id", quote.mr_config_id, &reference.mr_config_id);
    claims.one_of("mr owner", quote.mr_owner, &reference.mr_owner);
    claims.one_of("mr owner config", quote.mr_owner_config, &reference.mr_owner_config);
    for ((name, found), expect) in RTMR.into_iter().zip(quote.rtmr).zip(&reference.rtmr) {
        claims.one_of(name, found, expect);
    }
    claims.equal("report data", quote.report_data, &reference.report_data);
}

fn attributes(claims: &mut Claims, found: TdAttributes, expect: &Expect<TdAttributesRule>) {
    let mut allowed = |name, found, rule: fn(&TdAttributesRule) -> Allowance| {
        claims.allowance(name, found, &map(expect, rule));
    };
    allowed("td attributes: debug", found.debug(), |rule| rule.debug);
    allowed("td attributes: migratable", found.migratable(), |rule| rule.migratable);
    allowed("td attributes: perfmon", found.perfmon(), |rule| rule.perfmon);
    allowed("td attributes: key locker", found.key_locker(), |rule| rule.key_locker);
    allowed("td attributes: protection keys", found.protection_keys(), |rule| rule.protection_keys);
    allowed("td attributes: other", found.other() != 0, |rule| rule.other);
    let septve = map(expect, |rule| rule.septve_disabled);
    claims.requirement("td attributes: septve disabled", found.septve_disabled(), &septve);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit 28 alone is what a sound guest of today has.
    const SOUND: u64 = 1 << 28;

    fn unmet(bits: u64, rule: &Expect<TdAttributesRule>) -> Vec<&'static str> {
        let mut claims = Claims(Vec::new());
        attributes(&mut claims, TdAttributes(bits), rule);
        claims.0.iter().filter(|claim| !claim.met).map(|claim| claim.name).collect()
    }

    #[test]
    fn attack_quote_of_a_guest_that_its_host_can_read() {
        let strict = Expect::Is(TdAttributesRule::STRICT);
        assert_eq!(unmet(SOUND, &strict), [""; 0]);
        assert_eq!(unmet(SOUND | 1, &strict), ["td attributes: debug"]);
        assert_eq!(unmet(SOUND | 1 << 29, &strict), ["td attributes: migratable"]);
        assert_eq!(unmet(SOUND | 1 << 4, &strict), ["td attributes: other"]);
        assert_eq!(unmet(0, &strict), ["td attributes: septve disabled"]);
        assert_eq!(unmet(SOUND | 1 << 63, &strict), [""; 0]);
        assert_eq!(unmet(SOUND | 1, &Expect::any("an owner who says so")), [""; 0]);
    }
}
