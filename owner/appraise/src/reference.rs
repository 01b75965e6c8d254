//! What a relying party expects of a guest and its machine.

use std::collections::BTreeSet;

use ah_digest::{Digest, Sha384};
use ah_evidence::{
    ChipId, FirmwareVersion, HostData, Product, ReportData, SnpReport, TcbParts, Tee,
};
use serde::{Deserialize, Serialize};

/// An expectation, or the owner's word that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect<T> {
    /// This has to hold.
    Is(T),
    /// Anything will do.
    Any {
        /// Why, for whoever reads the appraisal.
        reason: String,
    },
}

impl<T> Expect<T> {
    /// Anything will do, for this reason.
    pub fn any(reason: impl Into<String>) -> Self {
        Self::Any { reason: reason.into() }
    }
}

/// Something that a guest may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// May be on or off.
    Allowed,
    /// Has to be off.
    Refused,
}

/// Something that protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// Has to be on.
    Required,
    /// May be on or off.
    Optional,
}

/// Everything that an appraisal looks at. An empty set is met by nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// What the guest runs in, by the root of the chain.
    pub tee: Expect<Tee>,
    /// Product lines, of which it has to be one.
    pub products: Expect<BTreeSet<Product>>,
    /// Product lines, of which it must be none: those whose keys got out.
    pub refused_products: Expect<BTreeSet<Product>>,
    /// Chips.
    pub chips: Expect<ChipRule>,
    /// Chips, of which it must be none. A masked chip may be any of them, so it is refused.
    pub refused_chips: Expect<Vec<ChipId>>,
    /// Revocation of the intermediate certificate.
    pub revocation: Expect<RevocationRule>,
    /// Launch digests.
    pub measurement: Expect<BTreeSet<Sha384>>,
    /// HOST_DATA: digests of initdata documents.
    pub host_data: Expect<BTreeSet<HostData>>,
    /// REPORT_DATA: what binds the report to this very exchange.
    pub report_data: Expect<ReportData>,
    /// POLICY of the guest.
    pub guest_policy: Expect<PolicyRule>,
    /// VMPL that asked for the report.
    pub vmpl: Expect<BTreeSet<u8>>,
    /// Least REPORTED_TCB.
    pub minimum_tcb: Expect<Vec<TcbFloor>>,
    /// Least LAUNCH_TCB.
    pub minimum_launch_tcb: Expect<Vec<TcbFloor>>,
    /// Firmware version.
    pub firmware: Expect<FirmwareRule>,
    /// PLATFORM_INFO.
    pub platform: Expect<PlatformRule>,
    /// Bits that both mitigation vectors must have.
    pub mitigations: Expect<u64>,
    /// Least GUEST_SVN.
    pub minimum_guest_svn: Expect<u32>,
    /// ID_KEY_DIGEST.
    pub id_key: Expect<BTreeSet<Sha384>>,
    /// AUTHOR_KEY_DIGEST.
    pub author_key: Expect<BTreeSet<Sha384>>,
    /// FAMILY_ID.
    pub family_id: Expect<Digest<16>>,
    /// IMAGE_ID.
    pub image_id: Expect<Digest<16>>,
    /// REPORT_ID: this very launch of the guest.
    pub report_id: Expect<Digest<32>>,
}

/// Which chips may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ChipRule {
    /// Any chip that its VCEK certificate names; not masked, not merely claimed under a VLEK.
    Identified,
    /// Any chip that the report names: its certificate's, or under a VLEK the one that the firmware claims.
    NotMasked,
    /// One of these.
    OneOf(Vec<ChipId>),
}

/// What has to be known about revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationRule {
    /// A fresh list was there and the intermediate is not on it.
    NotRevoked,
    /// The same, by a list that was issued at most so long ago, in days of 24 hours.
    NotRevokedWithin {
        /// Most age of the list.
        days: u32,
    },
}

/// The most that a guest policy may allow, and what it has to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// The host reads and writes guest memory.
    pub debug: Allowance,
    /// A migration agent moves the guest.
    pub migration: Allowance,
    /// Two guests share a core.
    pub smt: Allowance,
    /// Memory behind CXL.
    pub cxl: Allowance,
    /// One socket only.
    pub single_socket: Requirement,
    /// AES-256-XTS.
    pub aes_256_xts: Requirement,
    /// No power readings (RAPL).
    pub rapl_disabled: Requirement,
    /// Ciphertext hiding.
    pub ciphertext_hiding: Requirement,
    /// No page swapping.
    pub page_swap_disabled: Requirement,
    /// Least firmware API that the policy asks for, (major, minor).
    pub minimum_abi: (u8, u8),
}

impl PolicyRule {
    /// No debugging, no migration, no SMT, no CXL; nothing that only newer machines can be asked for.
    pub const STRICT: Self = Self {
        debug: Allowance::Refused,
        migration: Allowance::Refused,
        smt: Allowance::Refused,
        cxl: Allowance::Refused,
        single_socket: Requirement::Optional,
        aes_256_xts: Requirement::Optional,
        rapl_disabled: Requirement::Optional,
        ciphertext_hiding: Requirement::Optional,
        page_swap_disabled: Requirement::Optional,
        minimum_abi: (0, 0),
    };
}

/// Least TCB of a product line. All floors that apply have to be met, and one has to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloor {
    /// Product line.
    pub product: Product,
    /// CPUID model, since microcode versions of one line's models cannot be compared; None for all models.
    pub model: Option<u8>,
    /// Least value of each part.
    pub minimum: TcbParts,
}

impl TcbFloor {
    pub(crate) fn applies(&self, product: Product, report: &SnpReport) -> bool {
        let model = report.version.cpuid().map(|cpuid| cpuid.model);
        // A version 2 report names no model, so every floor of its line applies: else an old firmware would evade them.
        let of_model = self.model.is_none() || model.is_none() || self.model == model;
        self.product == product && of_model
    }
}

/// What is asked of the firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareRule {
    /// Least version that runs.
    pub minimum: FirmwareVersion,
    /// Firmware that runs without being committed: its host can still go back to the version before.
    pub provisional: Allowance,
}

/// What is asked of the platform's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformRule {
    /// SMT is on.
    pub smt: Allowance,
    /// Memory aliasing was checked (BadRAM).
    pub alias_check: Requirement,
    /// ECC memory.
    pub ecc: Requirement,
    /// No power readings (RAPL).
    pub rapl_disabled: Requirement,
    /// Ciphertext hiding.
    pub ciphertext_hiding: Requirement,
    /// Transparent SME.
    pub tsme: Requirement,
    /// Trusted I/O: devices may be part of the guest.
    pub tio: Allowance,
    /// Bits without a meaning here. Turin machines set bit 6.
    pub unknown: Allowance,
}

/// What is always known of a guest that is expected.
#[derive(Debug, Clone)]
pub struct Guest {
    /// What it runs in.
    pub tee: Tee,
    /// Its launch digest.
    pub measurement: Sha384,
    /// Digest of its initdata.
    pub host_data: HostData,
    /// What its report has to bind.
    pub report_data: ReportData,
}

impl ReferenceValues {
    /// Exactly this guest, under [`PolicyRule::STRICT`], reporting from VMPL 0; everything about the machine waived for `reason`.
    pub fn of_guest(guest: Guest, reason: &str) -> Self {
        Self {
            tee: Expect::Is(guest.tee),
            products: Expect::any(reason),
            refused_products: Expect::any(reason),
            chips: Expect::any(reason),
            refused_chips: Expect::any(reason),
            revocation: Expect::any(reason),
            measurement: Expect::Is([guest.measurement].into()),
            host_data: Expect::Is([guest.host_data].into()),
            report_data: Expect::Is(guest.report_data),
            guest_policy: Expect::Is(PolicyRule::STRICT),
            vmpl: Expect::Is([0].into()),
            minimum_tcb: Expect::any(reason),
            minimum_launch_tcb: Expect::any(reason),
            firmware: Expect::any(reason),
            platform: Expect::any(reason),
            mitigations: Expect::any(reason),
            minimum_guest_svn: Expect::any(reason),
            id_key: Expect::any(reason),
            author_key: Expect::any(reason),
            family_id: Expect::any(reason),
            image_id: Expect::any(reason),
            report_id: Expect::any(reason),
        }
    }
}
