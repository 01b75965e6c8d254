//! The SNP certificate table: what the extended guest request and configfs-tsm's `auxblob` give beside a report.
//!
//! Entries of 24 bytes (GUID 16, offset u32 LE, length u32 LE) end with a zero entry; the certificates follow (GHCB
//! specification, AMD document 56421, section "SNP Extended Guest Request"). The host writes the table, so nothing in it is
//! believed; it is a bag of certificates that a verifier then checks.

use crate::bytes::{Reader, Short};
use crate::service::MAX_AUXBLOB_BYTES;

const ENTRY_BYTES: usize = 24;
const PAGE_BYTES: usize = 4096;

/// Most entries that are read.
const MAX_ENTRIES: usize = 16;

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertKind {
    /// AMD root key.
    Ark,
    /// AMD SEV key (or, beside a VLEK, the ASVK).
    Ask,
    /// Chip endorsement key.
    Vcek,
    /// Loaded endorsement key.
    Vlek,
    /// Certificate revocation list.
    Crl,
}

/// The certificates of one table, DER as found, at most one of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertTable {
    entries: Vec<(CertKind, Vec<u8>)>,
}

/// Why bytes are not a certificate table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertTableError {
    /// Larger than 64 KiB.
    #[error("certificate table has {found} bytes, expected at most {MAX_AUXBLOB_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// No closing zero entry.
    #[error("certificate table has no end within its bytes and {MAX_ENTRIES} entries")]
    Unterminated,
    /// A GUID that names no certificate.
    #[error("certificate table has an entry of unknown guid {guid:02x?}")]
    UnknownGuid {
        /// GUID found, bytes in order.
        guid: [u8; 16],
    },
    /// Two entries of one kind.
    #[error("certificate table holds two entries of kind {kind:?}")]
    Duplicate {
        /// The kind.
        kind: CertKind,
    },
    /// An entry that is empty, or reaches into the header, another entry or behind the end.
    #[error("certificate of kind {kind:?} is not within the table: {length} bytes at {offset}")]
    Range {
        /// The kind.
        kind: CertKind,
        /// Offset found, bytes.
        offset: u32,
        /// Length found, bytes.
        length: u32,
    },
    /// Bytes that belong to no entry and are not zero, or padding beyond the next page boundary.
    #[error("certificate table holds stray bytes at {offset}")]
    Stray {
        /// Offset of the first.
        offset: usize,
    },
}

impl From<Short> for CertTableError {
    fn from(_: Short) -> Self {
        Self::Unterminated
    }
}

impl CertKind {
    const ALL: [Self; 5] = [Self::Ark, Self::Ask, Self::Vcek, Self::Vlek, Self::Crl];

    /// GUID bytes in the order of their text (GHCB specification; AMD's sev-guest writes them so).
    const fn guid(self) -> [u8; 16] {
        let guid: u128 = match self {
            Self::Ark => 0xc0b406a4_a803_4952_9743_3fb6014cd0ae,
            Self::Ask => 0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
            Self::Vcek => 0x63da758d_e664_4564_adc5_f4b93be8accd,
            Self::Vlek => 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
            Self::Crl => 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
        };
        guid.to_be_bytes()
    }

    /// Some hosts write the first three groups little-endian, so both orders are read.
    fn of_guid(guid: [u8; 16]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
        let swapped = {
            let [i, j, k, l, m, n, o, p] = rest;
            [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
        };
        Self::ALL.into_iter().find(|kind| kind.guid() == guid || kind.guid() == swapped)
    }
}

struct Entry {
    kind: CertKind,
    start: usize,
    end: usize,
}

impl CertTable {
    /// A table of these certificates.
    ///
    /// # Errors
    /// [`CertTableError::Duplicate`]; [`CertTableError::TooLarge`] if it could not be encoded.
    pub fn new(entries: Vec<(CertKind, Vec<u8>)>) -> Result<Self, CertTableError> {
        let mut seen = Vec::new();
        let mut found = header_bytes(entries.len());
        for (kind, certificate) in &entries {
            if seen.contains(kind) {
                return Err(CertTableError::Duplicate { kind: *kind });
            }
            if certificate.is_empty() {
                return Err(CertTableError::Range { kind: *kind, offset: 0, length: 0 });
            }
            seen.push(*kind);
            found = found.saturating_add(certificate.len());
        }
        match found > MAX_AUXBLOB_BYTES {
            true => Err(CertTableError::TooLarge { found }),
            false => Ok(Self { entries }),
        }
    }

    /// The certificate of `kind`.
    pub fn certificate(&self, kind: CertKind) -> Option<&[u8]> {
        self.entries.iter().find(|(found, _)| *found == kind).map(|(_, der)| der.as_slice())
    }

    /// All entries, in the order of the table.
    pub fn entries(&self) -> &[(CertKind, Vec<u8>)] {
        &self.entries
    }

    /// Reads a table; no bytes at all are a table without entries.
    ///
    /// Zero padding is taken up to the next 4 KiB boundary only, since the ioctl form of the request hands out whole pages.
    ///
    /// # Errors
    /// [`CertTableError`], a variant per cause.
    pub fn decode(bytes: &[u8]) -> Result<Self, CertTableError> {
        if bytes.len() > MAX_AUXBLOB_BYTES {
            return Err(CertTableError::TooLarge { found: bytes.len() });
        }
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let entries = read_entries(bytes)?;
        check_coverage(bytes, &entries)?;
        let certificates = entries
            .iter()
            .filter_map(|Entry { kind, start, end }| {
                bytes.get(*start..*end).map(|der| (*kind, der.to_vec()))
            })
            .collect();
        Self::new(certificates)
    }

    /// The table's bytes: header, then the certificates without gaps.
    pub fn encode(&self) -> Vec<u8> {
        let mut header: Vec<u8> = Vec::new();
        let mut body: Vec<u8> = Vec::new();
        let start = header_bytes(self.entries.len());
        for (kind, certificate) in &self.entries {
            // `new` bounds the sum to 64 KiB, so both fit.
            let offset = u32::try_from(start.saturating_add(body.len())).unwrap_or(u32::MAX);
            let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
            header.extend(kind.guid());
            header.extend(offset.to_le_bytes());
            header.extend(length.to_le_bytes());
            body.extend(certificate);
        }
        header.extend([0; ENTRY_BYTES]);
        header.extend(body);
        header
    }
}

const fn header_bytes(entries: usize) -> usize {
    entries.saturating_add(1).saturating_mul(ENTRY_BYTES)
}

fn read_entries(bytes: &[u8]) -> Result<Vec<Entry>, CertTableError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while entries.len() <= MAX_ENTRIES {
        let (guid, offset, length) = (reader.array::<16>()?, reader.u32()?, reader.u32()?);
        if (guid, offset, length) == ([0; 16], 0, 0) {
            return Ok(entries);
        }
        let kind = CertKind::of_guid(guid).ok_or(CertTableError::UnknownGuid { guid })?;
        let range = || CertTableError::Range { kind, offset, length };
        let start = usize::try_from(offset).map_err(|_| range())?;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        match end {
            Some(end) if start < end && end <= bytes.len() => {
                entries.push(Entry { kind, start, end });
            }
            _ => return Err(range()),
        }
    }
    Err(CertTableError::Unterminated)
}

/// Every byte belongs to the header, to one entry, or is zero padding.
fn check_coverage(bytes: &[u8], entries: &[Entry]) -> Result<(), CertTableError> {
    let mut at = header_bytes(entries.len());
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.start);
    for Entry { kind, start, end } in sorted {
        let field = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let gap = bytes.get(at..*start).ok_or_else(|| CertTableError::Range {
            kind: *kind,
            offset: field(*start),
            length: field(end.saturating_sub(*start)),
        })?;
        check_padding(gap, at)?;
        at = *end;
    }
    let padding = bytes.get(at..).unwrap_or_default();
    check_padding(padding, at)?;
    match padding.is_empty() || at.checked_next_multiple_of(PAGE_BYTES) == Some(bytes.len()) {
        true => Ok(()),
        false => Err(CertTableError::Stray { offset: at }),
    }
}

fn check_padding(gap: &[u8], at: usize) -> Result<(), CertTableError> {
    match gap.len() < PAGE_BYTES && gap.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(CertTableError::Stray { offset: at }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> CertTable {
        CertTable::new(vec![
            (CertKind::Vcek, vec![1; 10]),
            (CertKind::Ask, vec![2; 20]),
            (CertKind::Ark, vec![3; 30]),
        ])
        .unwrap()
    }

    fn check(change: impl FnOnce(&mut Vec<u8>), expect: Result<(), CertTableError>) {
        let mut bytes = table().encode();
        change(&mut bytes);
        assert_eq!(CertTable::decode(&bytes).map(drop), expect);
    }

    #[test]
    fn a_table_round_trips() {
        check(|_| {}, Ok(()));
        assert_eq!(CertTable::decode(&table().encode()).unwrap(), table());
        assert_eq!(table().certificate(CertKind::Ask), Some([2; 20].as_slice()));
        assert_eq!(CertTable::decode(&[]), Ok(CertTable::default()));
        check(|bytes| bytes.resize(4096, 0), Ok(()));
    }

    #[test]
    fn both_guid_orders_are_read() {
        let little = |bytes: &mut Vec<u8>| {
            bytes[0..4].reverse();
            bytes[4..6].reverse();
            bytes[6..8].reverse();
        };
        check(little, Ok(()));
    }

    #[test]
    fn attack_table_with_stray_bytes() {
        let end = table().encode().len();
        check(|bytes| bytes.push(0), Err(CertTableError::Stray { offset: end }));
        check(
            |bytes| {
                bytes.resize(4096, 0);
                bytes[4095] = 1;
            },
            Err(CertTableError::Stray { offset: end }),
        );
        check(|bytes| bytes.resize(8192, 0), Err(CertTableError::Stray { offset: end }));
    }

    #[test]
    fn attack_table_with_overlapping_or_wild_ranges() {
        let kind = CertKind::Vcek;
        let range = |offset, length| Err(CertTableError::Range { kind, offset, length });
        check(|bytes| bytes[16..20].copy_from_slice(&0u32.to_le_bytes()), range(0, 10));
        check(|bytes| bytes[20..24].copy_from_slice(&0u32.to_le_bytes()), range(96, 0));
        check(|bytes| bytes[16..24].copy_from_slice(&[0xff; 8]), range(u32::MAX, u32::MAX));
        check(
            |bytes| bytes[20..24].copy_from_slice(&11u32.to_le_bytes()),
            Err(CertTableError::Range { kind: CertKind::Ask, offset: 106, length: 20 }),
        );
    }

    #[test]
    fn headers_are_strict() {
        check(
            |bytes| {
                bytes.truncate(24);
                bytes[16..20].copy_from_slice(&0u32.to_le_bytes());
            },
            Err(CertTableError::Unterminated),
        );
        check(
            |bytes| bytes.copy_within(0..16, 24),
            Err(CertTableError::Duplicate { kind: CertKind::Vcek }),
        );
        check(|bytes| bytes[15] ^= 1, {
            let mut guid = CertKind::Vcek.guid();
            guid[15] ^= 1;
            Err(CertTableError::UnknownGuid { guid })
        });
        let found = MAX_AUXBLOB_BYTES + 1;
        check(|bytes| bytes.resize(found, 0), Err(CertTableError::TooLarge { found }));
    }

    proptest! {
        /// What decodes, decodes again from its own encoding.
        #[test]
        fn decode_is_stable(change in prop::collection::vec((0usize..156, any::<u8>()), 0..4)) {
            let mut bytes = table().encode();
            for (at, value) in change {
                bytes[at] = value;
            }
            if let Ok(table) = CertTable::decode(&bytes) {
                prop_assert_eq!(CertTable::decode(&table.encode()).unwrap(), table);
            }
        }
    }
}
