//! A verified report against reference values: every expectation is required, every claim is named.
//!
//! A field of [`ReferenceValues`] that a relying party does not care about has to be waived by [`Expect::Any`] with a reason,
//! which then stands in the appraisal: nothing is passed over in silence.
#![forbid(unsafe_code)]

mod appraisal;
mod claims;
mod meaning;
mod policy;
mod quote_claims;
mod reference;
mod rules;
mod tdx;
mod token_claims;

pub use appraisal::{Accepted, Appraisal, Claim, Verdict};
pub use policy::{AppraisalPolicy, PolicyError, SnpPolicy, TdxPolicy};
pub use quote_claims::quote_token_claims;
pub use reference::{
    Allowance, ChipRule, Expect, FirmwareRule, Guest, PlatformRule, PolicyRule, ReferenceValues,
    Requirement, RevocationRule, TcbFloor,
};
pub use rules::appraise;
pub use tdx::{TdAttributesRule, TdxReferenceValues, appraise_quote};
pub use token_claims::token_claims;
