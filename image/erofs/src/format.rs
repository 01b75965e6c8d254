//! Numbers and fixed-size records of the on-disk format (Linux `fs/erofs/erofs_fs.h`).

use crate::tree::Meta;

/// Size of an extended inode (`struct erofs_inode_extended`), bytes.
pub(crate) const INODE_BYTES: u64 = 64;
/// A node id counts slots of 32 bytes from the metadata area's start.
pub(crate) const SLOT_BYTES: u64 = 32;
/// First node id given out, the root's unless its attributes need the next block: not 0, which directory readers take for
/// a hole.
pub(crate) const FIRST_NID: u64 = 2;

/// File type bits of `i_mode` (Linux `stat.h`).
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFIFO: u16 = 0o010_000;
pub(crate) const S_IFCHR: u16 = 0o020_000;
pub(crate) const S_IFDIR: u16 = 0o040_000;
pub(crate) const S_IFBLK: u16 = 0o060_000;
pub(crate) const S_IFREG: u16 = 0o100_000;
pub(crate) const S_IFLNK: u16 = 0o120_000;
pub(crate) const S_IFSOCK: u16 = 0o140_000;

/// `i_format` bit 0: extended inode. Bits 1 to 3: data layout.
pub(crate) const FORMAT_EXTENDED: u16 = 1;

/// Where an inode's data lies (`EROFS_INODE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataLayout {
    /// Whole blocks from one block address.
    Plain = 0,
    /// Whole blocks, and the last part of a block behind the inode and its xattrs.
    Inline = 2,
    /// A map of chunks behind the inode, with holes.
    Chunks = 4,
}

impl DataLayout {
    pub(crate) fn of_format(format: u16) -> Option<Self> {
        match format.checked_sub(FORMAT_EXTENDED)? {
            0 => Some(Self::Plain),
            4 => Some(Self::Inline),
            8 => Some(Self::Chunks),
            _ => None,
        }
    }
}

/// `EROFS_NULL_ADDR`: a chunk that is a hole.
pub(crate) const HOLE: u32 = u32::MAX;

/// An extended inode as it is written.
pub(crate) struct RawInode<'a> {
    pub(crate) layout: DataLayout,
    pub(crate) xattr_count: u16,
    pub(crate) file_type: u16,
    pub(crate) meta: &'a Meta,
    pub(crate) size: u64,
    /// `i_u`: block address, device number or chunk format.
    pub(crate) u: u32,
    pub(crate) number: u32,
    pub(crate) links: u32,
}

impl RawInode<'_> {
    pub(crate) fn encode(&self) -> [u8; 64] {
        let format = FORMAT_EXTENDED | ((self.layout as u16) << 1);
        let mut out = [0; 64];
        let mut put = |offset: usize, bytes: &[u8]| {
            out[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &format.to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &(self.file_type | self.meta.mode).to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.u.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.meta.uid.to_le_bytes());
        put(28, &self.meta.gid.to_le_bytes());
        put(32, &self.meta.mtime_seconds.to_le_bytes());
        put(40, &self.meta.mtime_nanoseconds.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        out
    }
}

/// `new_encode_dev` of Linux `kdev_t.h`; `None` when a part does not fit.
pub(crate) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// `new_decode_dev` of Linux `kdev_t.h`: major, minor.
pub(crate) fn decode_device(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// A directory entry's type byte (`EROFS_FT_*`, the generic `FT_*` of Linux `fs_types.h`).
pub(crate) fn dirent_type(file_type: u16) -> u8 {
    match file_type {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        S_IFLNK => 7,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip_and_stop_at_their_width() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (4095, 1_048_575)] {
            assert_eq!(encode_device(major, minor).map(decode_device), Some((major, minor)));
        }
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }
}
