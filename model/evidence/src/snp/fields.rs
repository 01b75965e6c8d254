//! Typed views of single fields.

use std::fmt;

use ah_digest::Digest;
use serde::{Deserialize, Serialize};

use super::raw::ReportError;
use super::tcb::Product;

/// VERSION with the fields that exist from that version on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Firmware 1.49 to 1.54: says nothing about the processor.
    V2,
    /// Firmware 1.55: adds CPUID.
    V3(Cpuid),
    /// As version 3.
    V4(Cpuid),
    /// Firmware 1.56: adds the mitigation vectors.
    V5(Cpuid, MitigationVectors),
}

impl Version {
    /// The number in the report.
    pub const fn number(&self) -> u32 {
        match self {
            Self::V2 => 2,
            Self::V3(_) => 3,
            Self::V4(_) => 4,
            Self::V5(..) => 5,
        }
    }

    /// The processor, if this version names it.
    pub const fn cpuid(&self) -> Option<Cpuid> {
        match self {
            Self::V2 => None,
            Self::V3(cpuid) | Self::V4(cpuid) | Self::V5(cpuid, _) => Some(*cpuid),
        }
    }

    /// The mitigation vectors, if this version has them.
    pub const fn mitigations(&self) -> Option<MitigationVectors> {
        match self {
            Self::V5(_, vectors) => Some(*vectors),
            Self::V2 | Self::V3(_) | Self::V4(_) => None,
        }
    }
}

/// CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP: family and model combined with their extended parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpuid {
    /// Family.
    pub family: u8,
    /// Model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl Cpuid {
    /// The processor line; None if unknown.
    pub fn product(&self) -> Option<Product> {
        Product::of_cpuid(self.family, self.model)
    }
}

/// Which verified mitigations the firmware had at launch and has now, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MitigationVectors {
    /// LAUNCH_MIT_VECTOR.
    pub launch: u64,
    /// CURRENT_MIT_VECTOR.
    pub current: u64,
}

/// Firmware build and API version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareVersion {
    /// API major.
    pub major: u8,
    /// API minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// POLICY: what the guest's owner asked of the platform at launch, enforced by the security processor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    const SMT: u64 = 1 << 16;
    const ONE: u64 = 1 << 17;
    const MIGRATE_MA: u64 = 1 << 18;
    const DEBUG: u64 = 1 << 19;
    const RESERVED: u64 = !0 << 26;

    /// Bit 17 set, all else clear: no SMT, no migration agent, no debugging.
    pub const STRICT: Self = Self(Self::ONE);

    /// The policy in these bits.
    ///
    /// # Errors
    /// [`ReportError::Policy`] unless bit 17 is set and bits 26 to 63 are clear.
    pub const fn from_bits(found: u64) -> Result<Self, ReportError> {
        if found & Self::ONE == 0 || found & Self::RESERVED != 0 {
            return Err(ReportError::Policy { found });
        }
        Ok(Self(found))
    }

    /// All bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Allows SMT.
    pub const fn with_smt(self) -> Self {
        Self(self.0 | Self::SMT)
    }

    /// Allows association with a migration agent.
    pub const fn with_migration(self) -> Self {
        Self(self.0 | Self::MIGRATE_MA)
    }

    /// Lets the host read and write guest memory. Nothing in such a guest is secret; here for tests of the refusal.
    pub const fn with_debug(self) -> Self {
        Self(self.0 | Self::DEBUG)
    }

    /// Least firmware API version, (major, minor).
    pub const fn minimum_abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    /// Bit 16: SMT may be on.
    pub const fn smt_allowed(self) -> bool {
        self.0 & Self::SMT != 0
    }

    /// Bit 18: a migration agent may move the guest.
    pub const fn migration_allowed(self) -> bool {
        self.0 & Self::MIGRATE_MA != 0
    }

    /// Bit 19: the host may read and write guest memory.
    pub const fn debug_allowed(self) -> bool {
        self.0 & Self::DEBUG != 0
    }

    /// Bit 20: the guest runs on one socket only.
    pub const fn single_socket(self) -> bool {
        self.0 & (1 << 20) != 0
    }

    /// Bit 21: CXL memory may be used.
    pub const fn cxl_allowed(self) -> bool {
        self.0 & (1 << 21) != 0
    }

    /// Bit 22: memory encryption has to be AES-256-XTS.
    pub const fn aes_256_xts_required(self) -> bool {
        self.0 & (1 << 22) != 0
    }

    /// Bit 23: RAPL has to be off.
    pub const fn rapl_disabled(self) -> bool {
        self.0 & (1 << 23) != 0
    }

    /// Bit 24: ciphertext hiding has to be on.
    pub const fn ciphertext_hiding_required(self) -> bool {
        self.0 & (1 << 24) != 0
    }

    /// Bit 25: guest pages cannot be swapped.
    pub const fn page_swap_disabled(self) -> bool {
        self.0 & (1 << 25) != 0
    }
}

impl fmt::Debug for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPolicy({:#x})", self.0)
    }
}

/// PLATFORM_INFO. Bits without a name here are kept as found: real Turin machines set bit 6.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// Bit 0: SMT is on.
    pub const fn smt_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// Bit 1: transparent SME is on.
    pub const fn tsme_enabled(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// Bit 2: memory has ECC.
    pub const fn ecc_enabled(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// Bit 3: RAPL is off.
    pub const fn rapl_disabled(self) -> bool {
        self.0 & (1 << 3) != 0
    }

    /// Bit 4: ciphertext hiding is on.
    pub const fn ciphertext_hiding(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Bit 5: memory aliasing was checked since the last reset (what stops BadRAM).
    pub const fn alias_check_complete(self) -> bool {
        self.0 & (1 << 5) != 0
    }

    /// Bits without a name here.
    pub const fn unknown_bits(self) -> u64 {
        self.0 & !0b1011_1111
    }

    /// Bit 7: trusted I/O is on.
    pub const fn tio_enabled(self) -> bool {
        self.0 & (1 << 7) != 0
    }
}

impl fmt::Debug for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformInfo({:#x})", self.0)
    }
}

/// Which key signed the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKey {
    /// Versioned chip endorsement key: bound to one chip.
    Vcek,
    /// Versioned loaded endorsement key: leased to a cloud provider, shared by its chips.
    Vlek,
    /// The report carries no signature.
    None,
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
        })
    }
}

/// KEY_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyInfo {
    /// Bit 0: AUTHOR_KEY_DIGEST is meant.
    pub author_key: bool,
    /// Bit 1: the firmware writes zeros in place of the signature.
    pub mask_chip_key: bool,
    /// Bits 4:2.
    pub signing_key: SigningKey,
}

impl KeyInfo {
    pub(super) fn from_bits(found: u32) -> Result<Self, ReportError> {
        let signing_key = match found >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            _ => return Err(ReportError::KeyInfo { found }),
        };
        Ok(Self { author_key: found & 1 != 0, mask_chip_key: found & 2 != 0, signing_key })
    }

    pub(super) fn bits(self) -> u32 {
        let signing_key = match self.signing_key {
            SigningKey::Vcek => 0,
            SigningKey::Vlek => 1 << 2,
            SigningKey::None => 7 << 2,
        };
        u32::from(self.author_key) | u32::from(self.mask_chip_key) << 1 | signing_key
    }
}

/// CHIP_ID, 64 bytes; zero where the host masks it, 8 bytes and zeros from Turin on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChipId(pub [u8; 64]);

impl ChipId {
    /// True where the host asked the firmware to mask it (MASK_CHIP_ID).
    pub fn is_masked(&self) -> bool {
        self.0 == [0; 64]
    }

    /// True if only the first 8 bytes are used, as from Turin on.
    pub fn is_short(&self) -> bool {
        self.0.iter().skip(8).all(|byte| *byte == 0)
    }
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest::<64>::new(self.0).fmt(f)
    }
}

impl fmt::Debug for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChipId({self})")
    }
}

impl Serialize for ChipId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest::<64>::new(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ChipId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::<64>::deserialize(deserializer).map(|digest| Self(*digest.as_bytes()))
    }
}
