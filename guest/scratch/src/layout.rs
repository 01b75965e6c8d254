//! How the disk is divided: what dm-integrity keeps for itself, and the two halves of the rest.
//!
//! dm-integrity (Linux drivers/md/dm-integrity.c, `calculate_device_limits`): superblock of 8 sectors, a journal, then areas of tags and data
//! in turn. An area has 2^15 sectors of data (`DEFAULT_INTERLEAVE_SECTORS`), here 4096 blocks of 4 KiB with a tag of 32 bytes each: 256 sectors
//! of tags. The journal is not used in direct mode, but has its section of 656 sectors at this tag size.

use crate::ScratchError;

/// Bytes of a tag: the nonce of 16 and the authentication tag of 16 (AEGIS-128).
pub(crate) const TAG_BYTES: u64 = 32;
/// Sectors of 512 bytes in one block, the unit that is encrypted.
pub(crate) const BLOCK_SECTORS: u64 = 8;
/// What superblock and journal take, with room to spare.
const RESERVED_SECTORS: u64 = 2048;
const AREA_DATA_SECTORS: u64 = 1 << 15;
const AREA_TAG_SECTORS: u64 = AREA_DATA_SECTORS / BLOCK_SECTORS * TAG_BYTES / 512;
/// Two areas: one for each half.
const MIN_SECTORS: u64 = RESERVED_SECTORS + 2 * (AREA_DATA_SECTORS + AREA_TAG_SECTORS);
/// 4 TiB: a file system's descriptors are written when it is made, 2 MiB for this.
const MAX_SECTORS: u64 = 4 << 31;

/// The usable part of a disk, in sectors of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// All of it.
    pub(crate) sectors: u64,
    /// Length of the first half: what is shared.
    pub(crate) shared: u64,
}

impl Layout {
    pub(crate) fn of(disk_sectors: u64) -> Result<Self, ScratchError> {
        if disk_sectors < MIN_SECTORS {
            return Err(ScratchError::TooSmall {
                found_sectors: disk_sectors,
                expected_sectors: MIN_SECTORS,
            });
        }
        if disk_sectors > MAX_SECTORS {
            return Err(ScratchError::TooLarge {
                found_sectors: disk_sectors,
                expected_sectors: MAX_SECTORS,
            });
        }
        let areas = disk_sectors.saturating_sub(RESERVED_SECTORS)
            / AREA_DATA_SECTORS.saturating_add(AREA_TAG_SECTORS);
        let sectors = areas.saturating_mul(AREA_DATA_SECTORS);
        let blocks = sectors / BLOCK_SECTORS;
        Ok(Self { sectors, shared: (blocks / 2).saturating_mul(BLOCK_SECTORS) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_what_tags_leave() {
        assert_eq!(AREA_TAG_SECTORS, 256);
        let gib = Layout::of(2 << 21).unwrap();
        assert_eq!(gib.sectors, 126 * AREA_DATA_SECTORS);
        assert_eq!(gib.shared * 2, gib.sectors);
        assert!(Layout::of(MIN_SECTORS).is_ok());
        assert!(matches!(Layout::of(MIN_SECTORS - 1), Err(ScratchError::TooSmall { .. })));
        assert!(Layout::of(MAX_SECTORS).is_ok());
        assert!(matches!(Layout::of(MAX_SECTORS + 1), Err(ScratchError::TooLarge { .. })));
    }
}
