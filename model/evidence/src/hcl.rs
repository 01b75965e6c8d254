//! The blob that a confidential VM's paravisor keeps in its vTPM (NV index 0x01400001): report, and the runtime data bound by it.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | `HCLA` |
//! | 4 | 28 | header, not read |
//! | 32 | 1184 | SNP report |
//! | 1216 | 4 | size of the runtime data with this header, u32 LE |
//! | 1220 | 12 | version, report type (2: SNP), hash type (1: SHA-256, 2: SHA-384, 3: SHA-512), u32 LE each |
//! | 1232 | 4 | length of the JSON, u32 LE |
//! | 1236 | | runtime data: JSON with the vTPM's keys; zeros behind it |
//!
//! Facts from the Azure guest attestation documentation and a recorded blob's layout; only SHA-256 is bound by our rule.

use crate::bytes::{Reader, Short};
use crate::forms::{Form, Presented};
use crate::snp::{RawReport, ReportError, SNP_REPORT_BYTES};

const MAGIC: &[u8; 4] = b"HCLA";
const HEADER_BYTES: usize = 32;
const TYPE_SNP: u32 = 2;
const HASH_SHA256: u32 = 1;
/// The runtime header before the JSON.
const RUNTIME_HEADER_BYTES: u32 = 20;

/// Largest runtime data, bytes.
const MAX_RUNTIME_DATA_BYTES: u32 = 64 * 1024;

/// Why bytes are not such a blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HclError {
    /// It ends inside a field.
    #[error("hcl blob ends early")]
    Truncated,
    /// The report is none.
    #[error("hcl blob holds no snp report")]
    Report(#[source] ReportError),
    /// Of another kind of machine.
    #[error("hcl blob's report is of type {found}, expected 2 (snp)")]
    Type {
        /// Type found.
        found: u32,
    },
    /// Bound by another hash.
    #[error("hcl blob's runtime data is bound by hash type {found}, expected 1 (sha-256)")]
    Hash {
        /// Hash type found.
        found: u32,
    },
    /// Lengths that are too large, or that do not fit each other.
    #[error(
        "hcl blob's runtime data has {length} bytes in a part of {size}, at most {MAX_RUNTIME_DATA_BYTES} expected"
    )]
    Size {
        /// Length of the JSON, bytes.
        length: u32,
        /// Size with its header, bytes.
        size: u32,
    },
    /// Bytes behind the runtime data.
    #[error("hcl blob has bytes behind its runtime data that are not zero")]
    Trailing,
}

impl From<Short> for HclError {
    fn from(_: Short) -> Self {
        Self::Truncated
    }
}

pub(crate) fn is_hcl(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(crate) fn read(bytes: &[u8]) -> Result<Presented, HclError> {
    let mut reader = Reader::new(bytes);
    reader.slice(HEADER_BYTES)?;
    let report = RawReport::try_from(reader.slice(SNP_REPORT_BYTES)?).map_err(HclError::Report)?;
    let (size, _version) = (reader.u32()?, reader.u32()?);
    let (kind, hash, length) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if kind != TYPE_SNP {
        return Err(HclError::Type { found: kind });
    }
    if hash != HASH_SHA256 {
        return Err(HclError::Hash { found: hash });
    }
    let fits = length <= MAX_RUNTIME_DATA_BYTES
        && [length, length.saturating_add(RUNTIME_HEADER_BYTES)].contains(&size);
    if !fits {
        return Err(HclError::Size { length, size });
    }
    let data = reader.slice(usize::try_from(length).map_err(|_| HclError::Truncated)?)?.to_vec();
    match reader.rest().iter().all(|byte| *byte == 0) {
        true => Ok(Presented { runtime_data: Some(data), ..Presented::of(Form::Hcl, report) }),
        false => Err(HclError::Trailing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReportData, SnpReport};

    const JSON: &[u8] = br#"{"keys":[]}"#;

    fn blob() -> Vec<u8> {
        let mut bytes = b"HCLA".to_vec();
        bytes.extend([0; 28]);
        let mut report = [0; SNP_REPORT_BYTES];
        (report[0], report[0x0A], report[0x34]) = (2, 2, 1);
        report[0x50..0x90].copy_from_slice(ReportData::for_runtime_data(JSON).as_bytes());
        bytes.extend(report);
        let length = u32::try_from(JSON.len()).unwrap();
        for field in [length + 20, 1, 2, 1, length] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(JSON);
        bytes.resize(2600, 0);
        bytes
    }

    fn check(change: impl FnOnce(&mut Vec<u8>), expect: Result<(), HclError>) {
        let mut bytes = blob();
        change(&mut bytes);
        assert_eq!(read(&bytes).map(drop), expect);
    }

    #[test]
    fn a_blob_gives_report_and_runtime_data() {
        let presented = read(&blob()).unwrap();
        assert_eq!(presented.runtime_data.as_deref(), Some(JSON));
        let report = SnpReport::parse(&presented.report).unwrap();
        assert_eq!(report.report_data, ReportData::for_runtime_data(JSON));
    }

    #[test]
    fn attack_blob_with_other_lengths_or_kinds() {
        check(|_| {}, Ok(()));
        check(|bytes| bytes.truncate(1236 + JSON.len()), Ok(()));
        check(|bytes| bytes.truncate(1236 + JSON.len() - 1), Err(HclError::Truncated));
        check(|bytes| bytes[1224] = 4, Err(HclError::Type { found: 4 }));
        check(|bytes| bytes[1228] = 3, Err(HclError::Hash { found: 3 }));
        check(|bytes| bytes[2599] = 1, Err(HclError::Trailing));
        let size = u32::try_from(JSON.len()).unwrap() + 20;
        check(|bytes| bytes[1232] += 1, Err(HclError::Size { length: size - 19, size }));
        check(|bytes| bytes[1232..1236].fill(0xFF), Err(HclError::Size { length: u32::MAX, size }));
    }
}
