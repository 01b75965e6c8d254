//! Release policy: which claims evidence must carry before a key leaves the store.
//!
//! The grammar is that of Azure Key Vault's key release policy, version 1.0.0, so a policy written for it reads the same here:
//!
//! ```json
//! {"version":"1.0.0","anyOf":[{"authority":"https://…","allOf":[{"claim":"x-ms-sevsnpvm-hostdata","equals":"<hex>"}]}]}
//! ```
//!
//! Version 0.2 reads alike, and so does the form of the 7.3 preview, which has no version and writes a comparison as
//! `{"claim","condition":"equals","value"}`. What is written is always 1.0.0.
//!
//! Like there, only `equals` is an operator unless [`Operators::All`] is asked for; it compares across JSON types (`"false"` equals
//! `false`), a dot in a claim walks into an object, and a claim that is missing is not met. Stricter than there: an unknown member, an
//! empty list, or a value that could never be met is an error when the policy is read, not a key that never comes out.

mod evaluate;
mod operator;
mod parse;
mod pod;
#[cfg(test)]
mod properties;
mod wire;

use serde_json::Value;

pub use evaluate::{Claims, ConditionResult, Decision};
pub use operator::{Operator, Operators};
pub use parse::PolicyError;
pub use pod::{PodFacts, TeeKind};

/// `authority` of the claims that the key service makes itself from evidence it verified. A name; nothing is fetched from it.
pub const LOCAL_AUTHORITY: &str = "https://anchorhold.dev/verifier";

/// Names of claims: those of Microsoft Azure Attestation's SEV-SNP tokens where they exist.
pub mod claim {
    /// `"sevsnpvm"`, or [`super::SOFTWARE_TEE`]: which root the evidence leads to. Ours.
    pub const TEE: &str = "x-anchorhold-tee";
    /// `"not revoked"` by a fresh list of AMD's, or `"not checked"` where the evidence came without one. Ours.
    pub const REVOCATION: &str = "x-anchorhold-revocation";
    /// `"not checked"` where evidence came with UVM endorsements that nobody looked at. Ours.
    pub const UVM_ENDORSEMENT: &str = "x-anchorhold-uvm-endorsement";
    /// Kind of evidence: `"sevsnpvm"`.
    pub const ATTESTATION_TYPE: &str = "x-ms-attestation-type";
    /// Launch measurement, 96 hex digits.
    pub const LAUNCH_MEASUREMENT: &str = "x-ms-sevsnpvm-launchmeasurement";
    /// HOST_DATA, 64 hex digits: SHA-256 of the initdata document.
    pub const HOST_DATA: &str = "x-ms-sevsnpvm-hostdata";
    /// Whether the guest policy lets the host read guest memory.
    pub const IS_DEBUGGABLE: &str = "x-ms-sevsnpvm-is-debuggable";
    /// Whether a migration agent may move the guest.
    pub const MIGRATION_ALLOWED: &str = "x-ms-sevsnpvm-migration-allowed";
    /// Whether simultaneous multithreading is allowed.
    pub const SMT_ALLOWED: &str = "x-ms-sevsnpvm-smt-allowed";
    /// Privilege level that asked for the report, 0 is the highest.
    pub const VMPL: &str = "x-ms-sevsnpvm-vmpl";
    /// Security version that the guest's owner gave in the ID block.
    pub const GUEST_SVN: &str = "x-ms-sevsnpvm-guestsvn";
    /// REPORT_DATA, 128 hex digits.
    pub const REPORT_DATA: &str = "x-ms-sevsnpvm-reportdata";
    /// Report id, 64 hex digits.
    pub const REPORT_ID: &str = "x-ms-sevsnpvm-reportid";
    /// Family id of the ID block, 32 hex digits.
    pub const FAMILY_ID: &str = "x-ms-sevsnpvm-familyId";
    /// Image id of the ID block, 32 hex digits.
    pub const IMAGE_ID: &str = "x-ms-sevsnpvm-imageId";
    /// Digest of the key that signed the ID block, 96 hex digits.
    pub const ID_KEY_DIGEST: &str = "x-ms-sevsnpvm-idkeydigest";
    /// Digest of the key that signed the ID key, 96 hex digits.
    pub const AUTHOR_KEY_DIGEST: &str = "x-ms-sevsnpvm-authorkeydigest";
    /// Boot loader version of the reported TCB.
    pub const BOOTLOADER_SVN: &str = "x-ms-sevsnpvm-bootloader-svn";
    /// PSP operating system version of the reported TCB.
    pub const TEE_SVN: &str = "x-ms-sevsnpvm-tee-svn";
    /// SNP firmware version of the reported TCB.
    pub const SNP_FIRMWARE_SVN: &str = "x-ms-sevsnpvm-snpfw-svn";
    /// Microcode version of the reported TCB.
    pub const MICROCODE_SVN: &str = "x-ms-sevsnpvm-microcode-svn";
    /// Chip id, hex.
    pub const CHIP_ID: &str = "x-ms-sevsnpvm-chipid";
    /// Product, for example `"Milan"`.
    pub const CHIP_FAMILY: &str = "x-ms-sevsnpvm-chip-family";
}

/// Value of [`claim::TEE`] for evidence that leads to a processor vendor's root.
pub const HARDWARE_TEE: &str = "sevsnpvm";

/// Value of [`claim::TEE`] and of [`claim::ATTESTATION_TYPE`] for a quote under Intel's root.
pub const TDX_VM: &str = "tdxvm";

/// Names of claims about TDX guests that decide on their own: as Microsoft Azure Attestation names them, and some that it has not.
pub mod quote_claim {
    /// How Intel rates the platform's versions.
    pub const TCB_STATUS: &str = "attester_tcb_status";
    /// Whether the host reads and writes the guest's memory.
    pub const DEBUG: &str = "tdx_td_attributes_debug";
    /// Whether a migration service may move the guest.
    pub const MIGRATABLE: &str = "x-anchorhold-tdx-migratable";
    /// All TDATTRIBUTES, 16 hex digits of their bytes as they stand in the report (least significant first).
    pub const ATTRIBUTES: &str = "tdx_td_attributes";
    /// The attributes that have no claim of their own, in the same form; [`NO_ATTRIBUTES`] where there is none. Bits 4 to 6 let the host
    /// profile and step the guest (Intel TDX Module Base Architecture Specification, table "TD attributes").
    pub const OTHER_ATTRIBUTES: &str = "x-anchorhold-tdx-other-attributes";
    /// MRSERVICETD, 96 hex digits: hash of the service guests that are bound to this one; [`NO_SERVICE_TD`] where there is none.
    pub const SERVICE_TD: &str = "x-anchorhold-tdx-service-td";

    /// Value of [`OTHER_ATTRIBUTES`] of a guest without any.
    pub const NO_ATTRIBUTES: &str = "0000000000000000";
    /// Value of [`SERVICE_TD`] of a guest without any, and of one whose quote (TDX 1.0) knows of none.
    pub const NO_SERVICE_TD: &str = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";
}

/// Value of [`claim::TEE`] for evidence of a software TEE.
pub const SOFTWARE_TEE: &str = "software (not confidential)";

/// A policy that has been read and can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasePolicy {
    any_of: Vec<Authority>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    name: String,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Compare { claim: String, operator: Operator, value: Scalar },
    AllOf(Vec<Condition>),
    AnyOf(Vec<Condition>),
}

/// A claim's value that can be compared: text, truth value or whole number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Text, compared exactly.
    Text(String),
    /// Truth value, equal to the text `true` or `false`.
    Bool(bool),
    /// Whole number, equal to its decimal text.
    Number(i64),
}

impl Scalar {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Bool(truth) => Some(Self::Bool(*truth)),
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// `equals` across JSON types: two values are equal when their texts are.
    fn same_text(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Scalar {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<u32> for Scalar {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}
