//! The 1184 bytes as received, and the signature at their end.

use std::fmt;

use super::fields::Version;
use crate::bytes::{Reader, Short, Writer};

/// Length of a report, bytes (ABI specification, table "ATTESTATION_REPORT": 4A0h).
pub const SNP_REPORT_BYTES: usize = 0x4A0;
/// Length of the part that the signature covers, bytes (0..2A0h).
pub const SIGNED_BYTES: usize = 0x2A0;

/// Exactly one report, unread.
#[derive(Clone, PartialEq, Eq)]
pub struct RawReport([u8; SNP_REPORT_BYTES]);

/// Why bytes are not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Missing or trailing bytes.
    #[error("report has {found} bytes, expected {SNP_REPORT_BYTES}")]
    Length {
        /// Length found, bytes.
        found: usize,
    },
    /// A version that this parser does not know.
    #[error("report version is {found}, expected 2 to 5")]
    Version {
        /// Version found.
        found: u32,
    },
    /// A range that the specification wants zero.
    #[error("report bytes at {offset:#x} are set, expected zero")]
    MustBeZero {
        /// First byte of the range.
        offset: usize,
    },
    /// POLICY: bit 17 clear, or a reserved bit set.
    #[error("guest policy is {found:#x}, expected bit 17 set and bits 26 to 63 clear")]
    Policy {
        /// POLICY found.
        found: u64,
    },
    /// VMPL outside 0 to 3 (a report requested by the host has all bits set: no guest said anything in it).
    #[error("report vmpl is {found:#x}, expected 0 to 3")]
    Vmpl {
        /// VMPL found.
        found: u32,
    },
    /// SIGNATURE_ALGO other than 1.
    #[error("signature algorithm is {found}, expected 1 (ecdsa p-384 with sha-384)")]
    SignatureAlgorithm {
        /// Value found.
        found: u32,
    },
    /// KEY_INFO with a reserved SIGNING_KEY or a reserved bit.
    #[error("key info is {found:#x}, expected signing key 0, 1 or 7 and bits 5 to 31 clear")]
    KeyInfo {
        /// Value found.
        found: u32,
    },
}

impl RawReport {
    /// All bytes.
    pub const fn as_bytes(&self) -> &[u8; SNP_REPORT_BYTES] {
        &self.0
    }

    /// The bytes that the signature covers.
    pub fn signed_bytes(&self) -> &[u8] {
        self.0.split_at_checked(SIGNED_BYTES).map_or(&[], |(signed, _)| signed)
    }

    /// VERSION, before anything else is believed.
    pub fn version_number(&self) -> u32 {
        self.0.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// The signature, with every byte that the specification wants zero found zero.
    ///
    /// # Errors
    /// [`ReportError::MustBeZero`].
    pub fn signature(&self) -> Result<ReportSignature, ReportError> {
        ReportSignature::read(&self.0).map_err(|fault| match fault {
            SignatureFault::Short => ReportError::Length { found: self.0.len() },
            SignatureFault::NotZero(offset) => ReportError::MustBeZero { offset },
        })
    }

    /// A report from its signed part and a signature over it. For whoever plays the security processor.
    pub fn assemble(signed: &[u8; SIGNED_BYTES], signature: &ReportSignature) -> Self {
        let mut writer = Writer::new();
        writer.put(signed);
        writer.put(&reversed(&signature.r));
        writer.skip(24);
        writer.put(&reversed(&signature.s));
        writer.skip(24 + 368);
        Self(writer.finish())
    }
}

impl TryFrom<&[u8]> for RawReport {
    type Error = ReportError;

    fn try_from(bytes: &[u8]) -> Result<Self, ReportError> {
        bytes.try_into().map(Self).map_err(|_| ReportError::Length { found: bytes.len() })
    }
}

impl fmt::Debug for RawReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawReport(version {})", self.version_number())
    }
}

/// ECDSA P-384 signature of a report. In the report R and S are 72 bytes little-endian with the upper 24 zero; here they are
/// 48 bytes big-endian, the form that signature libraries take. Their range is checked where the signature is.
#[derive(Clone, PartialEq, Eq)]
pub struct ReportSignature {
    /// R, big-endian.
    pub r: [u8; 48],
    /// S, big-endian.
    pub s: [u8; 48],
}

enum SignatureFault {
    Short,
    NotZero(usize),
}

impl From<Short> for SignatureFault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl ReportSignature {
    fn read(report: &[u8]) -> Result<Self, SignatureFault> {
        let mut reader = Reader::new(report);
        reader.slice(SIGNED_BYTES)?;
        let r = reversed(&reader.array()?);
        zero(&reader.array::<24>()?, 0x2D0)?;
        let s = reversed(&reader.array()?);
        zero(&reader.array::<24>()?, 0x318)?;
        zero(reader.rest(), 0x330)?;
        Ok(Self { r, s })
    }

    /// R and S behind each other, big-endian: the fixed form of IEEE P1363.
    pub fn to_fixed(&self) -> [u8; 96] {
        let mut writer = Writer::new();
        writer.put(&self.r);
        writer.put(&self.s);
        writer.finish()
    }

    /// From the fixed form of IEEE P1363.
    pub fn from_fixed(bytes: &[u8; 96]) -> Self {
        let mut signature = Self { r: [0; 48], s: [0; 48] };
        let slots = signature.r.iter_mut().chain(&mut signature.s);
        slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        signature
    }
}

impl fmt::Debug for ReportSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportSignature")
    }
}

impl Version {
    pub(super) fn check_number(found: u32) -> Result<u32, ReportError> {
        match found {
            2..=5 => Ok(found),
            _ => Err(ReportError::Version { found }),
        }
    }
}

fn zero(bytes: &[u8], offset: usize) -> Result<(), SignatureFault> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(SignatureFault::NotZero(offset)),
    }
}

fn reversed(bytes: &[u8; 48]) -> [u8; 48] {
    let mut reversed = *bytes;
    reversed.reverse();
    reversed
}
