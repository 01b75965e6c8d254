//! The exchange by which a guest without a security processor asks its host for a report: wire form only, no sockets.
//!
//! | direction | bytes |
//! |---|---|
//! | guest to host | 64 bytes REPORT_DATA |
//! | host to guest | u32 LE length of the report (always 1184), report, u32 LE length of the auxblob (at most 64 KiB), auxblob |
//!
//! One exchange a connection; anything behind the response is an error.

use crate::bytes::{Reader, Short};
use crate::snp::{RawReport, ReportError, SNP_REPORT_BYTES};

/// The vsock port on the host (CID 2) that hands out software reports.
pub const SOFTWARE_REPORT_PORT: u32 = 1030;

/// Largest certificate table that is accepted, bytes.
pub const MAX_AUXBLOB_BYTES: usize = 64 * 1024;

/// Largest response of the software report service, bytes.
pub const MAX_RESPONSE_BYTES: usize = 8 + SNP_REPORT_BYTES + MAX_AUXBLOB_BYTES;

/// A report with the certificate table that came with it, both as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportWithCerts {
    /// The report.
    pub report: RawReport,
    /// SNP certificate table (see [`crate::CertTable`]); empty where the host gave none.
    pub auxblob: Vec<u8>,
}

/// Why a response of the software report service was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The connection ended inside a field.
    #[error("report response ends early")]
    Truncated,
    /// The report is not a report.
    #[error("report response holds no report")]
    Report(#[source] ReportError),
    /// The certificate table is larger than [`MAX_AUXBLOB_BYTES`].
    #[error("certificate table has {found} bytes, expected at most {MAX_AUXBLOB_BYTES}")]
    AuxblobTooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// Bytes behind the response.
    #[error("report response has {found} bytes behind its end")]
    TrailingBytes {
        /// How many.
        found: usize,
    },
}

impl From<Short> for ServiceError {
    fn from(_: Short) -> Self {
        Self::Truncated
    }
}

impl ReportWithCerts {
    /// The response of the service.
    ///
    /// # Errors
    /// [`ServiceError::AuxblobTooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, ServiceError> {
        let too_large = || ServiceError::AuxblobTooLarge { found: self.auxblob.len() };
        if self.auxblob.len() > MAX_AUXBLOB_BYTES {
            return Err(too_large());
        }
        let report = self.report.as_bytes();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(report.len()).map_err(|_| too_large())?.to_le_bytes());
        bytes.extend(report);
        bytes.extend(u32::try_from(self.auxblob.len()).map_err(|_| too_large())?.to_le_bytes());
        bytes.extend(&self.auxblob);
        Ok(bytes)
    }

    /// Reads a whole response, as received until the host closed its side.
    ///
    /// # Errors
    /// [`ServiceError`] for anything but exactly one response.
    pub fn decode(bytes: &[u8]) -> Result<Self, ServiceError> {
        let mut reader = Reader::new(bytes);
        let length = length(reader.u32()?)?;
        let report = RawReport::try_from(reader.slice(length)?).map_err(ServiceError::Report)?;
        let found = self::length(reader.u32()?)?;
        if found > MAX_AUXBLOB_BYTES {
            return Err(ServiceError::AuxblobTooLarge { found });
        }
        let auxblob = reader.slice(found)?.to_vec();
        match reader.rest().len() {
            0 => Ok(Self { report, auxblob }),
            found => Err(ServiceError::TrailingBytes { found }),
        }
    }
}

fn length(field: u32) -> Result<usize, ServiceError> {
    usize::try_from(field).map_err(|_| ServiceError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> Vec<u8> {
        let report = RawReport::try_from([7; SNP_REPORT_BYTES].as_slice()).unwrap();
        ReportWithCerts { report, auxblob: vec![1, 2, 3] }.encode().unwrap()
    }

    #[test]
    fn a_response_round_trips() {
        let decoded = ReportWithCerts::decode(&response()).unwrap();
        assert_eq!(decoded.encode().unwrap(), response());
    }

    #[test]
    fn attack_response_with_trailing_bytes() {
        let mut bytes = response();
        bytes.push(0);
        assert_eq!(ReportWithCerts::decode(&bytes), Err(ServiceError::TrailingBytes { found: 1 }));
        let bytes = response();
        assert_eq!(
            ReportWithCerts::decode(&bytes[..bytes.len() - 1]),
            Err(ServiceError::Truncated)
        );
    }

    #[test]
    fn lengths_are_bounded() {
        let mut bytes = response();
        let at = 4 + SNP_REPORT_BYTES;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let found = usize::try_from(u32::MAX).unwrap();
        assert_eq!(ReportWithCerts::decode(&bytes), Err(ServiceError::AuxblobTooLarge { found }));
        bytes[..4].copy_from_slice(&1183u32.to_le_bytes());
        let expect = ServiceError::Report(ReportError::Length { found: 1183 });
        assert_eq!(ReportWithCerts::decode(&bytes), Err(expect));
    }
}
