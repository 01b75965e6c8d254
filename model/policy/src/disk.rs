//! The initdata disk: how the host hands the document to the guest.
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | the bytes `initdata` |
//! | 8 | 8 | length of the gzip member in bytes, little endian |
//! | 16 | length | gzip of the document |
//! | 16 + length | to the end | zero, up to a multiple of 512 |
//!
//! Example: a 300 byte member makes a disk of 512 bytes: `69 6e 69 74 64 61 74 61  2c 01 00 00 00 00 00 00  1f 8b …`,
//! with zeros from offset 316.

use crate::gzip::{self, MAX_PACKED_BYTES};
use crate::{DocumentError, InitData};

const MAGIC: &[u8; 8] = b"initdata";
const HEADER_BYTES: usize = 16;
const SECTOR_BYTES: usize = 512;
/// Largest disk: header, the largest member, padding of less than a sector.
const MAX_DISK_BYTES: usize = HEADER_BYTES + MAX_PACKED_BYTES + SECTOR_BYTES;

impl InitData {
    /// The disk's bytes, a multiple of 512.
    pub fn to_disk(&self) -> Vec<u8> {
        let packed = gzip::pack(self.bytes());
        let length = u64::try_from(packed.len()).unwrap_or(u64::MAX);
        let mut disk = [&MAGIC[..], &length.to_le_bytes(), &packed].concat();
        disk.resize(disk.len().next_multiple_of(SECTOR_BYTES), 0);
        disk
    }

    /// Reads a disk. The host made every byte of it.
    ///
    /// # Errors
    /// [`DocumentError::Disk`] for another magic, a length beyond the disk or anything but zeros behind the member;
    /// size; and as [`InitData::parse`].
    pub fn from_disk(disk: &[u8]) -> Result<Self, DocumentError> {
        if disk.len() > MAX_DISK_BYTES {
            let (found, max) = (disk.len(), MAX_DISK_BYTES);
            return Err(DocumentError::TooLarge { what: "initdata disk", found, max });
        }
        let (magic, rest) = disk.split_first_chunk::<8>().ok_or(SHORT)?;
        if magic != MAGIC {
            return Err(DocumentError::Disk { detail: "it does not start with \"initdata\"" });
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| SHORT)?;
        let (packed, padding) = rest.split_at_checked(length).ok_or(SHORT)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(DocumentError::Disk {
                detail: "bytes other than zero behind the document",
            });
        }
        Self::parse(&gzip::unpack("initdata", packed)?)
    }
}

const SHORT: DocumentError = DocumentError::Disk { detail: "it ends inside the document" };
