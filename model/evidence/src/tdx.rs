//! TDX quotes, as far as naming them needs: Intel TDX DCAP Quoting Library API, appendix "Quote Format".
//!
//! Verification of quotes is not here yet. Quotes from the field carry padding behind their end, so unlike for SNP reports
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

/// Fields of the TD report that name a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxReportView {
    /// TDATTRIBUTES; bit 0 is DEBUG.
    pub td_attributes: u64,
    /// MRTD: measurement of the initial contents.
    pub mr_td: Sha384,
    /// MRCONFIGID: what the host fixed at launch.
    pub mr_config_id: Sha384,
    /// RTMR0 to RTMR3.
    pub rtmr: [Sha384; 4],
    /// REPORTDATA.
    pub report_data: ReportData,
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
        if version == 5 {
            check_body(reader.u16()?, reader.u32()?)?;
        }
        Ok(Self { version, attestation_key_type, report: TdxReportView::parse(reader)? })
    }
}

fn check_body(kind: u16, found: u32) -> Result<(), TdxError> {
    match (kind, found) {
        (2, TD_REPORT_10_BYTES) | (3, TD_REPORT_15_BYTES) => Ok(()),
        _ => Err(TdxError::Body { kind, found }),
    }
}

impl TdxReportView {
    fn parse(mut reader: Reader<'_>) -> Result<Self, TdxError> {
        // TEE_TCB_SVN 16, MRSEAM 48, MRSIGNERSEAM 48, SEAMATTRIBUTES 8.
        reader.slice(120)?;
        let td_attributes = reader.u64()?;
        reader.u64()?;
        let mr_td = Sha384::new(reader.array()?);
        let mr_config_id = Sha384::new(reader.array()?);
        // MROWNER 48, MROWNERCONFIG 48.
        reader.slice(96)?;
        let mut rtmr = [Sha384::new([0; 48]); 4];
        for slot in &mut rtmr {
            *slot = Sha384::new(reader.array()?);
        }
        let report_data = ReportData::new(reader.array()?);
        Ok(Self { td_attributes, mr_td, mr_config_id, rtmr, report_data })
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
