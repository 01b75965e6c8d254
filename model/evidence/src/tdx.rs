//! TDX quotes, as far as naming them needs: Intel TDX DCAP Quoting Library API, appendix "Quote Format".
//!
//! Nothing here says that a quote is genuine: `ah_verifier` does. Quotes from the field carry padding behind their end, so unlike for SNP reports
//! trailing bytes are not an error of the outer form.

use ah_digest::Sha384;

use crate::bytes::{Reader, Short};
use crate::report_data::ReportData;

/// Largest quote, bytes.
const MAX_QUOTE_BYTES: usize = 64 * 1024;
const TEE_TYPE_TDX: u32 = 0x81;
const TD_REPORT_10_BYTES: u32 = 584;
const TD_REPORT_15_BYTES: u32 = 648;

/// Bytes that start like a TDX quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawQuote {
    bytes: Vec<u8>,
    view: TdxQuoteView,
}

/// Header of a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxQuoteView {
    /// Quote version, 4 or 5.
    pub version: u16,
    /// Kind of the attestation key; 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// The TD report in the quote.
    pub report: TdxReportView,
}

/// Fields of the TD report (Intel TDX Module Base Architecture Specification, TDINFO and TEE_TCB_INFO). What somebody claims,
/// until `ah_verifier` says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxReportView {
    /// TEE_TCB_SVN: byte 0 is the minor version of the TDX module, byte 1 the major, byte 2 the loader's.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM: measurement of the TDX module.
    pub mr_seam: Sha384,
    /// MRSIGNERSEAM: zero for a module of Intel's.
    pub mr_signer_seam: Sha384,
    /// SEAMATTRIBUTES.
    pub seam_attributes: u64,
    /// TDATTRIBUTES; bit 0 is DEBUG.
    pub td_attributes: TdAttributes,
    /// XFAM: extended features that the guest may use.
    pub xfam: u64,
    /// MRTD: measurement of the initial contents.
    pub mr_td: Sha384,
    /// MRCONFIGID: what the host fixed at launch.
    pub mr_config_id: Sha384,
    /// MROWNER: set by the host at launch.
    pub mr_owner: Sha384,
    /// MROWNERCONFIG: set by the host at launch.
    pub mr_owner_config: Sha384,
    /// RTMR0 to RTMR3.
    pub rtmr: [Sha384; 4],
    /// REPORTDATA.
    pub report_data: ReportData,
    /// What TDX 1.5 adds.
    pub extension: Option<TdxExtension>,
}

/// What a TD report of TDX 1.5 says beside that of TDX 1.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxExtension {
    /// TEE_TCB_SVN_2: what runs now, after updates of the module under the running guest.
    pub tee_tcb_svn2: [u8; 16],
    /// MRSERVICETD: hash of the service guests that are bound to this one; zero without any.
    pub mr_service_td: Sha384,
}

/// TDATTRIBUTES (Intel TDX Module Base Architecture Specification, table "TD attributes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdAttributes(pub u64);

impl TdAttributes {
    const NAMED: u64 = 1 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 31 | 1 << 63;

    /// Bit 0: the host may read and write the guest.
    pub const fn debug(self) -> bool {
        self.0 & 1 != 0
    }

    /// Bit 28: no exceptions in the guest for pages that the host took away.
    pub const fn septve_disabled(self) -> bool {
        self.0 & 1 << 28 != 0
    }

    /// Bit 29: a migration service may move the guest.
    pub const fn migratable(self) -> bool {
        self.0 & 1 << 29 != 0
    }

    /// Bit 30: supervisor protection keys.
    pub const fn protection_keys(self) -> bool {
        self.0 & 1 << 30 != 0
    }

    /// Bit 31: Key Locker.
    pub const fn key_locker(self) -> bool {
        self.0 & 1 << 31 != 0
    }

    /// Bit 63: performance counters.
    pub const fn perfmon(self) -> bool {
        self.0 & 1 << 63 != 0
    }

    /// Bits without a name here.
    pub const fn other(self) -> u64 {
        self.0 & !Self::NAMED
    }
}

/// Why bytes are not a TDX quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TdxError {
    /// The quote ends inside a field.
    #[error("tdx quote ends early")]
    Truncated,
    /// Larger than 64 KiB.
    #[error("tdx quote has {found} bytes, expected at most {MAX_QUOTE_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// Neither version 4 nor 5.
    #[error("quote version is {found}, expected 4 or 5")]
    Version {
        /// Version found.
        found: u16,
    },
    /// Not a TDX quote.
    #[error("quote is of tee type {found:#x}, expected 0x81 (tdx)")]
    TeeType {
        /// Type found.
        found: u32,
    },
    /// A body that does not hold a TD report.
    #[error("quote body is of type {kind} with {found} bytes, expected a td report")]
    Body {
        /// Body type found.
        kind: u16,
        /// Length found, bytes.
        found: u32,
    },
}

impl From<Short> for TdxError {
    fn from(_: Short) -> Self {
        Self::Truncated
    }
}

impl RawQuote {
    /// Reads header and TD report.
    ///
    /// # Errors
    /// [`TdxError`], a variant per cause.
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        if bytes.len() > MAX_QUOTE_BYTES {
            return Err(TdxError::TooLarge { found: bytes.len() });
        }
        Ok(Self { view: TdxQuoteView::parse(bytes)?, bytes: bytes.to_vec() })
    }

    /// All bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the quote says.
    pub fn view(&self) -> &TdxQuoteView {
        &self.view
    }
}

impl TdxQuoteView {
    fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16()?;
        let attestation_key_type = reader.u16()?;
        let tee_type = reader.u32()?;
        if !matches!(version, 4 | 5) {
            return Err(TdxError::Version { found: version });
        }
        if tee_type != TEE_TYPE_TDX {
            return Err(TdxError::TeeType { found: tee_type });
        }
        reader.slice(40)?;
        let extended = version == 5 && is_extended(reader.u16()?, reader.u32()?)?;
        Ok(Self { version, attestation_key_type, report: TdxReportView::parse(reader, extended)? })
    }
}

/// Body type 2 is the report of TDX 1.0, 3 that of TDX 1.5.
fn is_extended(kind: u16, found: u32) -> Result<bool, TdxError> {
    match (kind, found) {
        (2, TD_REPORT_10_BYTES) => Ok(false),
        (3, TD_REPORT_15_BYTES) => Ok(true),
        _ => Err(TdxError::Body { kind, found }),
    }
}

impl TdxReportView {
    fn parse(mut reader: Reader<'_>, extended: bool) -> Result<Self, TdxError> {
        let tee_tcb_svn = reader.array()?;
        let mr_seam = Sha384::new(reader.array()?);
        let mr_signer_seam = Sha384::new(reader.array()?);
        let seam_attributes = reader.u64()?;
        let td_attributes = TdAttributes(reader.u64()?);
        let xfam = reader.u64()?;
        let mr_td = Sha384::new(reader.array()?);
        let mr_config_id = Sha384::new(reader.array()?);
        let mr_owner = Sha384::new(reader.array()?);
        let mr_owner_config = Sha384::new(reader.array()?);
        let mut rtmr = [Sha384::new([0; 48]); 4];
        for slot in &mut rtmr {
            *slot = Sha384::new(reader.array()?);
        }
        let report_data = ReportData::new(reader.array()?);
        let extension = match extended {
            true => Some(TdxExtension {
                tee_tcb_svn2: reader.array()?,
                mr_service_td: Sha384::new(reader.array()?),
            }),
            false => None,
        };
        Ok(Self {
            tee_tcb_svn,
            mr_seam,
            mr_signer_seam,
            seam_attributes,
            td_attributes,
            xfam,
            mr_td,
            mr_config_id,
            mr_owner,
            mr_owner_config,
            rtmr,
            report_data,
            extension,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote() -> Vec<u8> {
        let mut quote = vec![0; 48 + 584];
        quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
        quote[48 + 136] = 0xAA;
        quote[48 + 328] = 0xBB;
        quote[48 + 520] = 0xCC;
        quote
    }

    /// The same guest in version 5 with a report of TDX 1.5.
    fn quote_5() -> Vec<u8> {
        let mut quote = quote();
        quote[0] = 5;
        let body = [3, 0, 0x88, 2, 0, 0];
        quote.splice(48..48, body);
        quote.extend([0xDD; 64]);
        quote
    }

    fn check(change: impl FnOnce(&mut Vec<u8>), expect: Result<(), TdxError>) {
        let mut bytes = quote();
        change(&mut bytes);
        assert_eq!(RawQuote::parse(&bytes).map(drop), expect);
    }

    #[test]
    fn fields_stand_at_their_offsets() {
        let quote = RawQuote::parse(&quote()).unwrap();
        let report = &quote.view().report;
        assert_eq!(report.mr_td.as_bytes()[0], 0xAA);
        assert_eq!(report.rtmr[0].as_bytes()[0], 0xBB);
        assert_eq!(report.report_data.as_bytes()[0], 0xCC);
        assert_eq!(report.extension, None);
        let five = RawQuote::parse(&quote_5()).unwrap();
        let report_5 = &five.view().report;
        assert_eq!(report_5.extension.as_ref().unwrap().mr_service_td.as_bytes(), &[0xDD; 48]);
        assert_eq!(TdxReportView { extension: None, ..report_5.clone() }, *report);
        assert_eq!(RawQuote::parse(&quote_5()[..701]), Err(TdxError::Truncated));
    }

    #[test]
    fn attributes_stand_at_their_bits() {
        let only = |bits| {
            let a = TdAttributes(bits);
            let named = [a.debug(), a.septve_disabled(), a.migratable()];
            let more = [a.protection_keys(), a.key_locker(), a.perfmon()];
            let set = named.into_iter().chain(more).filter(|set| *set).count();
            (set, a.other())
        };
        for bit in [0, 28, 29, 30, 31, 63] {
            assert_eq!(only(1 << bit), (1, 0), "{bit}");
        }
        assert_eq!(only(1 << 4), (0, 16));
        assert!(TdAttributes(1).debug() && TdAttributes(1 << 29).migratable());
    }

    #[test]
    fn other_quotes_are_refused() {
        check(|_| {}, Ok(()));
        check(|bytes| bytes[0] = 3, Err(TdxError::Version { found: 3 }));
        check(|bytes| bytes[4] = 0, Err(TdxError::TeeType { found: 0 }));
        check(|bytes| bytes.truncate(600), Err(TdxError::Truncated));
        check(|bytes| bytes[0] = 5, Err(TdxError::Body { kind: 0, found: 0 }));
    }
}
