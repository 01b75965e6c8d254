//! A relying party's policy as a file, TOML or JSON: what it says is required, what it does not say is waived and shown so.
//!
//! ```toml
//! [snp]
//! refused_products = ["Milan"]
//! vmpl = [0]
//! revocation = { not_revoked_within = { days = 30 } }
//! guest_policy = { smt = "allowed" }            # the rest of it stays strict: no debugging, no migration, no CXL
//! platform = { alias_check = "required" }
//! minimum_tcb = [{ product = "Genoa", model = 0x11, minimum = { boot_loader = 10, tee = 0, snp = 27, microcode = 88 } }]
//!
//! [tdx]
//! tcb_status = ["UpToDate", "SWHardeningNeeded"]
//! ```

use std::collections::BTreeSet;

use ah_digest::{Digest, Sha384};
use ah_evidence::{ChipId, HostData, Product, ReportData};
use ah_verifier::TcbStatus;
use serde::Deserialize;

use crate::reference::{
    ChipRule, Expect, FirmwareRule, PlatformRule, PolicyRule, ReferenceValues, RevocationRule,
    TcbFloor,
};
use crate::tdx::{TdAttributesRule, TdxReferenceValues};

/// Largest policy file, bytes.
const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppraisalPolicy {
    /// What is asked of SNP reports; a file without it is not about them.
    pub snp: Option<SnpPolicy>,
    /// What is asked of TDX quotes; a file without it is not about them.
    pub tdx: Option<TdxPolicy>,
}

/// Why a text is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Larger than policies are.
    #[error("appraisal policy has {found} bytes, expected at most {MAX_POLICY_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// Not TOML, or with keys that mean nothing.
    #[error("appraisal policy is malformed")]
    Toml(#[source] Box<toml::de::Error>),
    /// Not JSON, or with keys that mean nothing.
    #[error("appraisal policy is malformed")]
    Json(#[source] serde_json::Error),
}

/// The part of [`ReferenceValues`] that a file may state, under the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the names of ReferenceValues")]
pub struct SnpPolicy {
    pub products: Option<BTreeSet<Product>>,
    pub refused_products: Option<BTreeSet<Product>>,
    pub chips: Option<ChipRule>,
    pub refused_chips: Option<Vec<ChipId>>,
    pub revocation: Option<RevocationRule>,
    pub measurement: Option<BTreeSet<Sha384>>,
    pub host_data: Option<BTreeSet<HostData>>,
    pub report_data: Option<ReportData>,
    pub guest_policy: Option<PolicyRule>,
    pub vmpl: Option<BTreeSet<u8>>,
    pub minimum_tcb: Option<Vec<TcbFloor>>,
    pub minimum_launch_tcb: Option<Vec<TcbFloor>>,
    pub firmware: Option<FirmwareRule>,
    pub platform: Option<PlatformRule>,
    pub mitigations: Option<u64>,
    pub minimum_guest_svn: Option<u32>,
    pub id_key: Option<BTreeSet<Sha384>>,
    pub author_key: Option<BTreeSet<Sha384>>,
    pub family_id: Option<Digest<16>>,
    pub image_id: Option<Digest<16>>,
    pub report_id: Option<Digest<32>>,
}

/// The part of [`TdxReferenceValues`] that a file may state, under the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the names of TdxReferenceValues")]
pub struct TdxPolicy {
    pub tcb_status: Option<BTreeSet<TcbStatus>>,
    pub refused_advisories: Option<BTreeSet<String>>,
    pub minimum_tcb_evaluation: Option<u32>,
    pub minimum_tee_tcb_svn: Option<Digest<16>>,
    pub fmspc: Option<BTreeSet<Digest<6>>>,
    pub mr_seam: Option<BTreeSet<Sha384>>,
    pub mr_signer_seam: Option<BTreeSet<Sha384>>,
    pub mr_td: Option<BTreeSet<Sha384>>,
    pub mr_config_id: Option<BTreeSet<Sha384>>,
    pub mr_owner: Option<BTreeSet<Sha384>>,
    pub mr_owner_config: Option<BTreeSet<Sha384>>,
    pub rtmr0: Option<BTreeSet<Sha384>>,
    pub rtmr1: Option<BTreeSet<Sha384>>,
    pub rtmr2: Option<BTreeSet<Sha384>>,
    pub rtmr3: Option<BTreeSet<Sha384>>,
    pub report_data: Option<ReportData>,
    pub attributes: Option<TdAttributesRule>,
    pub service_td: Option<BTreeSet<Sha384>>,
}

impl AppraisalPolicy {
    /// Reads TOML.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        limit(text.len())?;
        toml::from_str(text).map_err(|error| PolicyError::Toml(Box::new(error)))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        limit(text.len())?;
        serde_json::from_str(text).map_err(PolicyError::Json)
    }
}

fn limit(found: usize) -> Result<(), PolicyError> {
    if found > MAX_POLICY_BYTES { Err(PolicyError::TooLarge { found }) } else { Ok(()) }
}

/// What the file says takes the place of what was expected without it.
fn state<T: Clone>(slot: &mut Expect<T>, said: &Option<T>) {
    if let Some(said) = said {
        *slot = Expect::Is(said.clone());
    }
}

impl SnpPolicy {
    /// Puts what the policy says into `reference`; what it does not say stays as it is there.
    pub fn apply(&self, reference: &mut ReferenceValues) {
        state(&mut reference.products, &self.products);
        state(&mut reference.refused_products, &self.refused_products);
        state(&mut reference.chips, &self.chips);
        state(&mut reference.refused_chips, &self.refused_chips);
        state(&mut reference.revocation, &self.revocation);
        state(&mut reference.measurement, &self.measurement);
        state(&mut reference.host_data, &self.host_data);
        state(&mut reference.report_data, &self.report_data);
        state(&mut reference.guest_policy, &self.guest_policy);
        state(&mut reference.vmpl, &self.vmpl);
        state(&mut reference.minimum_tcb, &self.minimum_tcb);
        state(&mut reference.minimum_launch_tcb, &self.minimum_launch_tcb);
        state(&mut reference.firmware, &self.firmware);
        state(&mut reference.platform, &self.platform);
        state(&mut reference.mitigations, &self.mitigations);
        state(&mut reference.minimum_guest_svn, &self.minimum_guest_svn);
        state(&mut reference.id_key, &self.id_key);
        state(&mut reference.author_key, &self.author_key);
        state(&mut reference.family_id, &self.family_id);
        state(&mut reference.image_id, &self.image_id);
        state(&mut reference.report_id, &self.report_id);
    }
}

impl TdxPolicy {
    /// Puts what the policy says into `reference`; what it does not say stays as it is there.
    pub fn apply(&self, reference: &mut TdxReferenceValues) {
        state(&mut reference.tcb_status, &self.tcb_status);
        state(&mut reference.refused_advisories, &self.refused_advisories);
        state(&mut reference.minimum_tcb_evaluation, &self.minimum_tcb_evaluation);
        state(&mut reference.minimum_tee_tcb_svn, &self.minimum_tee_tcb_svn);
        state(&mut reference.fmspc, &self.fmspc);
        state(&mut reference.mr_seam, &self.mr_seam);
        state(&mut reference.mr_signer_seam, &self.mr_signer_seam);
        state(&mut reference.mr_td, &self.mr_td);
        state(&mut reference.mr_config_id, &self.mr_config_id);
        state(&mut reference.mr_owner, &self.mr_owner);
        state(&mut reference.mr_owner_config, &self.mr_owner_config);
        let said = [&self.rtmr0, &self.rtmr1, &self.rtmr2, &self.rtmr3];
        reference.rtmr.iter_mut().zip(said).for_each(|(slot, said)| state(slot, said));
        state(&mut reference.report_data, &self.report_data);
        state(&mut reference.attributes, &self.attributes);
        state(&mut reference.service_td, &self.service_td);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Allowance;

    const TEXT: &str = r#"
[snp]
refused_products = ["Milan"]
vmpl = [0]
revocation = { not_revoked_within = { days = 30 } }
guest_policy = { smt = "allowed" }
mitigations = 0xb
minimum_tcb = [{ product = "Genoa", model = 0x11, minimum = { boot_loader = 10, tee = 0, snp = 27, microcode = 88 } }]

[tdx]
tcb_status = ["UpToDate", "SWHardeningNeeded"]
"#;

    #[test]
    fn what_is_said_is_required_and_what_is_not_stays_strict() {
        let policy = AppraisalPolicy::from_toml(TEXT).unwrap();
        let snp = policy.snp.unwrap();
        let rule = snp.guest_policy.unwrap();
        assert_eq!(rule, PolicyRule { smt: Allowance::Allowed, ..PolicyRule::STRICT });
        assert_eq!(snp.mitigations, Some(11));
        assert_eq!(snp.minimum_tcb.unwrap()[0].model, Some(0x11));
        assert_eq!(snp.products, None);
        assert_eq!(policy.tdx.unwrap().tcb_status.unwrap().len(), 2);
        let json = r#"{"snp":{"vmpl":[0]}}"#;
        assert_eq!(AppraisalPolicy::from_json(json).unwrap().snp.unwrap().vmpl, Some([0].into()));
    }

    #[test]
    fn attack_policy_with_a_misspelt_rule() {
        for (from, to) in [
            ("vmpl", "vmpI"),
            ("[snp]", "[sev]"),
            ("smt = \"allowed\"", "smtt = \"allowed\""),
            ("\"allowed\"", "\"allow\""),
            ("Milan", "Rome"),
            ("days", "day"),
            ("microcode = 88", "ucode = 88"),
        ] {
            let other = TEXT.replacen(from, to, 1);
            assert!(AppraisalPolicy::from_toml(&other).is_err(), "{to}");
        }
    }
}
