//! An empty ext4 file system, as the few blocks that have to be written: every other block may hold anything, and is never read.
//!
//! Format: Linux Documentation/filesystems/ext4 (super, group_descr, inodes, directory). Little-endian, blocks of 4096 bytes, groups of 32768
//! blocks. No journal: nothing survives the guest. Features, and what each is for:
//!
//! | feature | why |
//! |---|---|
//! | gdt_csum | with the flags INODE_UNINIT and BLOCK_UNINIT, bitmaps and inode tables of unused groups are not read |
//! | sparse_super2, no backup groups | every group but the first starts with its bitmaps |
//! | extent, filetype, ext_attr, dir_index | what overlayfs and large folders need |
//! | large_file, huge_file, dir_nlink, extra_isize | large files, many folders, exact times |
//!
//! A group: block bitmap, inode bitmap, inode table, data; before it in group 0 the superblock and the group descriptors. In group 0 the
//! first data block is the root folder's. Only the first block of its inode table is written: the kernel makes others up while all their
//! inodes are unused (fs/ext4/inode.c, `__ext4_get_inode_loc`).

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
const GROUP_BLOCKS: u64 = 32768;
const INODE_BYTES: u64 = 256;
const INODES_A_BLOCK: u64 = BLOCK_BYTES / INODE_BYTES;
/// One inode for so many blocks: 16 KiB, as mke2fs has it.
const BLOCKS_AN_INODE: u64 = 4;
const DESCRIPTOR_BYTES: usize = 32;
/// The first ten inodes are the file system's own; number 2 is the root.
const RESERVED_INODES: u64 = 10;
/// Least size: 1 MiB.
const MIN_BLOCKS: u64 = 256;
/// 8 TiB, well within 32-bit block numbers.
const MAX_BLOCKS: u64 = 1 << 31;

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

/// Bytes to be written at a block: a multiple of 4096.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// First block.
    pub block: u64,
    /// What it and those behind it hold.
    pub bytes: Vec<u8>,
}

/// A size in which no file system is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found} blocks of 4 KiB, expected {MIN_BLOCKS} to {MAX_BLOCKS}")]
pub struct FormatError {
    found: u64,
}

/// How many blocks a file system needs so that files of `bytes` in all fit: its own tables, 1/64 for the trees of large files and folders, and
/// what the kernel sets aside for itself, 1/50 up to 4096 blocks (fs/ext4/super.c, `ext4_set_resv_clusters`).
pub fn blocks_for(bytes: u64) -> u64 {
    let data = bytes.div_ceil(BLOCK_BYTES);
    let tables = data / (BLOCKS_AN_INODE * INODES_A_BLOCK);
    let groups = (data / GROUP_BLOCKS).saturating_add(2).saturating_mul(4);
    let aside = (data / 45).min(4200);
    let more = [tables, data / 64, aside, groups, 16];
    more.iter().fold(data, |sum, more| sum.saturating_add(*more)).max(MIN_BLOCKS)
}

/// The blocks of an empty file system of `blocks` blocks. `seed` should be random: it is the UUID, and keeps names in folders from being
/// chosen so that they collide.
///
/// # Errors
/// [`FormatError`] for a size out of range.
pub fn format(blocks: u64, seed: &[u8; 16]) -> Result<Vec<Piece>, FormatError> {
    let shape = Shape::of(blocks)?;
    let mut pieces = vec![
        Piece { block: 0, bytes: superblock(&shape, seed) },
        Piece { block: 1, bytes: descriptors(&shape, seed) },
        Piece { block: shape.block_bitmap(0), bytes: block_bitmap(&shape, 0) },
        Piece { block: shape.inode_bitmap(0), bytes: inode_bitmap(&shape) },
        Piece { block: shape.inode_table(0), bytes: first_inodes(&shape) },
        Piece { block: shape.root_folder(), bytes: root_folder() },
    ];
    // The kernel and e2fsck work out the bitmap of an unused group, but of the last one only when it is whole.
    let last = shape.groups.saturating_sub(1);
    if last > 0 {
        pieces.push(Piece { block: shape.block_bitmap(last), bytes: block_bitmap(&shape, last) });
    }
    Ok(pieces)
}

/// Where everything is.
#[derive(Debug, Clone, Copy)]
struct Shape {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
    group_inodes: u64,
}

impl Shape {
    fn of(found: u64) -> Result<Self, FormatError> {
        if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&found) {
            return Err(FormatError { found });
        }
        let widest = found.min(GROUP_BLOCKS);
        let group_inodes = (widest / BLOCKS_AN_INODE).next_multiple_of(INODES_A_BLOCK);
        let tables = (group_inodes / INODES_A_BLOCK).saturating_add(2);
        // A last group with hardly any room beside its tables is left out.
        let rest = found % GROUP_BLOCKS;
        let blocks = match found > GROUP_BLOCKS && rest < tables.saturating_add(64) {
            true => found.saturating_sub(rest),
            false => found,
        };
        let groups = blocks.div_ceil(GROUP_BLOCKS);
        let descriptor_blocks =
            groups.saturating_mul(DESCRIPTOR_BYTES as u64).div_ceil(BLOCK_BYTES);
        Ok(Self { blocks, groups, descriptor_blocks, group_inodes })
    }

    fn start(&self, group: u64) -> u64 {
        group.saturating_mul(GROUP_BLOCKS)
    }

    fn len(&self, group: u64) -> u64 {
        self.blocks.saturating_sub(self.start(group)).min(GROUP_BLOCKS)
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        let before = if group == 0 { self.descriptor_blocks.saturating_add(1) } else { 0 };
        self.start(group).saturating_add(before)
    }

    fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group).saturating_add(1)
    }

    fn inode_table(&self, group: u64) -> u64 {
        self.block_bitmap(group).saturating_add(2)
    }

    fn table_blocks(&self) -> u64 {
        self.group_inodes / INODES_A_BLOCK
    }

    fn root_folder(&self) -> u64 {
        self.inode_table(0).saturating_add(self.table_blocks())
    }

    /// Blocks of a group that are in use, all at its start.
    fn used(&self, group: u64) -> u64 {
        let tables = self.inode_table(group).saturating_add(self.table_blocks());
        let root = u64::from(group == 0);
        tables.saturating_add(root).saturating_sub(self.start(group))
    }

    fn free(&self, group: u64) -> u64 {
        self.len(group).saturating_sub(self.used(group))
    }

    fn free_blocks(&self) -> u64 {
        (0..self.groups).map(|group| self.free(group)).sum()
    }

    fn inodes(&self) -> u64 {
        self.groups.saturating_mul(self.group_inodes)
    }

    fn free_inodes(&self, group: u64) -> u64 {
        let reserved = if group == 0 { RESERVED_INODES } else { 0 };
        self.group_inodes.saturating_sub(reserved)
    }
}

/// A buffer of whole blocks; what does not fit in is left out, and the tests' reference tools would see it.
struct Bytes(Vec<u8>);

impl Bytes {
    fn blocks(count: u64) -> Self {
        Self(vec![0; usize::try_from(count).unwrap_or(0).saturating_mul(BLOCK)])
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let range = offset..offset.saturating_add(bytes.len());
        if let Some(place) = self.0.get_mut(range) {
            place.copy_from_slice(bytes);
        }
    }

    fn u8(&mut self, offset: usize, value: u8) {
        self.put(offset, &[value]);
    }

    fn u16(&mut self, offset: usize, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    /// The low 16 bits: groups and tables are smaller.
    fn low16(&mut self, offset: usize, value: u64) {
        self.u16(offset, u16::try_from(value).unwrap_or(u16::MAX));
    }

    fn u32(&mut self, offset: usize, value: u64) {
        self.put(offset, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }
}

fn superblock(shape: &Shape, seed: &[u8; 16]) -> Vec<u8> {
    let mut block = Bytes::blocks(1);
    let free_inodes = shape.inodes().saturating_sub(RESERVED_INODES);
    let words = [
        (0x00, shape.inodes()),
        (0x04, shape.blocks),
        (0x0c, shape.free_blocks()),
        (0x10, free_inodes),
        (0x18, 2), // block size: 1024 << 2
        (0x1c, 2), // cluster size, the same
        (0x20, GROUP_BLOCKS),
        (0x24, GROUP_BLOCKS),
        (0x28, shape.group_inodes),
        (0x4c, 1), // revision with features
        (0x54, RESERVED_INODES.saturating_add(1)),
        (0x5c, 0x8 | 0x20 | 0x200), // ext_attr, dir_index, sparse_super2
        (0x60, 0x2 | 0x40),         // filetype, extent
        (0x64, 0x2 | 0x8 | 0x10 | 0x20 | 0x40), // large_file, huge_file, gdt_csum, dir_nlink, extra_isize
        (0x100, 0xc),                           // mount options: user_xattr, acl
        (0x160, 1),                             // names are hashed as signed characters
    ];
    for (offset, value) in words {
        block.u32(offset + 1024, value);
    }
    let halves = [
        (0x36, 0xffff), // no count of mounts asks for a check
        (0x38, 0xef53),
        (0x3a, 1), // clean
        (0x3c, 2), // on an error: read-only
        (0x58, 256),
        (0x15c, 32),
        (0x15e, 32),
    ];
    for (offset, value) in halves {
        block.u16(offset + 1024, value);
    }
    block.put(0x68 + 1024, seed);
    block.put(0xec + 1024, seed);
    block.u8(0xfc + 1024, 1); // half MD4
    block.0
}

fn descriptors(shape: &Shape, seed: &[u8; 16]) -> Vec<u8> {
    let mut table = Bytes::blocks(shape.descriptor_blocks);
    for (group, offset) in (0..shape.groups).zip((0..).step_by(DESCRIPTOR_BYTES)) {
        table.put(offset, &descriptor(shape, group, seed));
    }
    table.0
}

fn descriptor(shape: &Shape, group: u64, seed: &[u8; 16]) -> [u8; DESCRIPTOR_BYTES] {
    let last = shape.groups.saturating_sub(1);
    let flags = match group {
        0 => INODE_ZEROED,
        group if group == last => INODE_ZEROED | INODE_UNINIT,
        _ => INODE_ZEROED | INODE_UNINIT | BLOCK_UNINIT,
    };
    let mut bytes = Bytes(vec![0; DESCRIPTOR_BYTES]);
    bytes.u32(0x0, shape.block_bitmap(group));
    bytes.u32(0x4, shape.inode_bitmap(group));
    bytes.u32(0x8, shape.inode_table(group));
    bytes.low16(0xc, shape.free(group));
    bytes.low16(0xe, shape.free_inodes(group));
    bytes.u16(0x10, u16::from(group == 0));
    bytes.u16(0x12, flags);
    bytes.low16(0x1c, shape.free_inodes(group));
    let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
    let checked = bytes.0.get(..0x1e).unwrap_or_default();
    let sum = crc16(&[seed.as_slice(), &number, checked]);
    bytes.u16(0x1e, sum);
    let mut descriptor = [0; DESCRIPTOR_BYTES];
    descriptor.copy_from_slice(&bytes.0);
    descriptor
}

/// CRC-16 with polynomial 0x8005, reflected, from all ones (Linux lib/crc16.c).
fn crc16(parts: &[&[u8]]) -> u16 {
    let step = |crc: u16, byte: &u8| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0xa001,
            _ => crc >> 1,
        })
    };
    parts.iter().flat_map(|part| part.iter()).fold(0xffff, step)
}

fn block_bitmap(shape: &Shape, group: u64) -> Vec<u8> {
    bitmap(shape.used(group), shape.len(group))
}

fn inode_bitmap(shape: &Shape) -> Vec<u8> {
    bitmap(RESERVED_INODES, shape.group_inodes)
}

/// One block of bits: the first `used` are set, and those from `len` on, which stand for nothing.
fn bitmap(used: u64, len: u64) -> Vec<u8> {
    let bit = |bit: u64| bit < used || bit >= len;
    let byte = |byte: u64| {
        (0..8).fold(0_u8, |bits, at| {
            bits | u8::from(bit(byte.saturating_mul(8).saturating_add(at))) << at
        })
    };
    (0..BLOCK_BYTES).map(byte).collect()
}

/// Inodes 1 to 16, of which only the root is one.
fn first_inodes(shape: &Shape) -> Vec<u8> {
    let mut block = Bytes::blocks(1);
    let root = 256;
    block.u16(root, 0o040_755);
    block.u32(root + 0x4, BLOCK_BYTES);
    block.u16(root + 0x1a, 2); // links: its entry and itself
    block.u32(root + 0x1c, BLOCK_BYTES / 512);
    block.u32(root + 0x20, 0x8_0000); // by extents
    block.u16(root + 0x28, 0xf30a);
    block.u16(root + 0x2a, 1); // one extent
    block.u16(root + 0x2c, 4); // of at most four
    block.u16(root + 0x38, 1); // of one block
    block.u32(root + 0x3c, shape.root_folder());
    block.u16(root + 0x80, 32);
    block.0
}

/// `.` and `..`, both the root.
fn root_folder() -> Vec<u8> {
    let mut block = Bytes::blocks(1);
    let entries: [(usize, u16, &[u8]); 2] = [(0, 12, b"."), (12, 4096 - 12, b"..")];
    for (offset, length, name) in entries {
        block.u32(offset, 2);
        block.u16(offset + 4, length);
        block.u8(offset + 6, u8::try_from(name.len()).unwrap_or_default());
        block.u8(offset + 7, 2); // a folder
        block.put(offset + 8, name);
    }
    block.0
}
