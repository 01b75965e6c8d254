use std::io;

use crate::error::ReadError;
use crate::format::{self, DataLayout, HOLE, INODE_BYTES, SLOT_BYTES};
use crate::superblock::Superblock;
use crate::tree::Meta;
use crate::{
    BLOCK_BYTES, BLOCK_BYTES_U64, MAX_CHUNKS, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_SYMLINK_BYTES,
    dirent::{self, Dirent},
    xattr,
};

/// Longest directory that is read, bytes: as many of the longest names as there may be inodes would be more.
const MAX_DIRECTORY_BYTES: u64 = 256 << 20;

/// Bytes at offsets: a file, a slice.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When fewer bytes are there, or the source fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length of the source, bytes.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// An image of the form that [`crate::ImageWriter`] writes; any other is refused, and so is every offset behind its end.
/// What follows the image in its source (a hash tree) is not read.
#[derive(Debug)]
pub struct Image<R> {
    source: R,
    superblock: Superblock,
}

/// One inode as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Node id: names the inode in its image.
    pub nid: u64,
    /// Owner, permissions, time, extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: FileKind,
    /// Names it has; for a directory 2 and one for each subdirectory.
    pub links: u32,
    /// Length of its data, bytes.
    pub size: u64,
    data: DataLayout,
    u: u32,
    /// Offset behind the inode and its xattrs, bytes.
    beside: u64,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileKind {
    Directory,
    File,
    Symlink,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// One name in a directory; `.` and `..` are checked and left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Its inode.
    pub nid: u64,
    pub(crate) file_type: u8,
}

impl<R: ReadAt> Image<R> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// [`ReadError`] for anything but an image of this writer's form.
    pub fn open(source: R) -> Result<Self, ReadError> {
        let length = source.length().map_err(ReadError::Source)?;
        let mut block = [0; BLOCK_BYTES];
        if length < BLOCK_BYTES_U64 {
            return Err(ReadError::Outside {
                what: "superblock",
                offset: BLOCK_BYTES_U64,
                end: length,
            });
        }
        source.read_exact_at(&mut block, 0).map_err(ReadError::Source)?;
        let superblock = Superblock::parse(&block, length)?;
        Ok(Self { source, superblock })
    }

    /// Length of the image, blocks.
    pub fn blocks(&self) -> u64 {
        self.superblock.blocks.into()
    }

    /// Inodes that the superblock counts.
    pub fn inodes(&self) -> u64 {
        self.superblock.inodes
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`Image::inode`].
    pub fn root(&self) -> Result<Inode, ReadError> {
        self.inode(self.superblock.root_nid.into())
    }

    /// Reads an inode.
    ///
    /// # Errors
    /// [`ReadError`] when it lies outside the image or has a value that the writer never writes.
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let meta_start = u64::from(self.superblock.meta_block) * BLOCK_BYTES_U64;
        let offset = nid
            .checked_mul(SLOT_BYTES)
            .and_then(|offset| offset.checked_add(meta_start))
            .ok_or(ReadError::Field { what: "inode number", found: nid })?;
        let mut raw = [0; INODE_BYTES as usize];
        self.read("inode", offset, &mut raw)?;
        let raw = RawFields(raw);
        let data = DataLayout::of_format(raw.u16_at(0))
            .ok_or(ReadError::Field { what: "inode format", found: raw.u16_at(0).into() })?;
        let mut body = vec![0; xattr::bytes_of_count(raw.u16_at(2))];
        self.read("extended attributes", offset + INODE_BYTES, &mut body)?;
        let meta = raw.meta(xattr::decode(&body)?)?;
        let inode = Inode {
            nid,
            meta,
            kind: raw.kind()?,
            links: raw.u32_at(44),
            size: raw.u64_at(8),
            data,
            u: raw.u32_at(16),
            beside: offset + INODE_BYTES + body.len() as u64,
        };
        if inode.data == DataLayout::Chunks && !self.superblock.chunks {
            return Err(ReadError::Field { what: "inode format", found: 4 });
        }
        inode.checked()
    }

    /// Reads a directory, in byte order of the names.
    ///
    /// # Errors
    /// [`ReadError`] when the inode is no directory or its blocks are malformed, unsorted or without `.` and `..`.
    pub fn read_dir(&self, directory: &Inode) -> Result<Vec<Entry>, ReadError> {
        self.read_dir_and_parent(directory).map(|(entries, _)| entries)
    }

    /// The entries, and the inode that `..` names.
    pub(crate) fn read_dir_and_parent(
        &self,
        directory: &Inode,
    ) -> Result<(Vec<Entry>, u64), ReadError> {
        let structure = |what| ReadError::Structure { nid: directory.nid, what };
        if directory.kind != FileKind::Directory {
            return Err(structure("not a directory"));
        }
        let bytes = self.read_file(directory, MAX_DIRECTORY_BYTES)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut before: Vec<u8> = Vec::new();
        let (mut own, mut parent) = (None, None);
        for block in bytes.chunks(BLOCK_BYTES) {
            for entry in dirent::decode_block(block)? {
                if entry.name <= &*before {
                    return Err(structure("names are not sorted"));
                }
                before = entry.name.to_vec();
                let Dirent { name, nid, file_type } = entry;
                match name {
                    b"." => own = Some(nid),
                    b".." => parent = Some(nid),
                    name => entries.push(Entry { name: name.to_vec(), nid, file_type }),
                }
            }
        }
        match (own, parent) {
            (Some(own), Some(parent)) if own == directory.nid => Ok((entries, parent)),
            _ => Err(structure(". or .. is missing or wrong")),
        }
    }

    /// Looks a path up from the root, without following symlinks; `None` when a part of it is not there.
    ///
    /// # Errors
    /// As [`Image::read_dir`].
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Inode>, ReadError> {
        let mut inode = self.root()?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            if inode.kind != FileKind::Directory || part.len() > MAX_NAME_BYTES {
                return Ok(None);
            }
            let entries = self.read_dir(&inode)?;
            match entries.binary_search_by(|entry| entry.name.as_slice().cmp(part)) {
                Ok(index) => inode = self.inode(entries[index].nid)?,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// A file's, directory's or symlink's bytes, when there are at most `max_bytes` of them.
    ///
    /// # Errors
    /// [`ReadError`], [`ReadError::TooLarge`] included.
    pub fn read_file(&self, inode: &Inode, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        if inode.size > max_bytes {
            let what = "file";
            return Err(ReadError::TooLarge { what, found: inode.size, expected: max_bytes });
        }
        let mut bytes = Vec::new();
        self.copy_file(inode, &mut bytes)?;
        Ok(bytes)
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// As [`Image::read_file`]; also when the inode is no symlink.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        if inode.kind != FileKind::Symlink {
            return Err(ReadError::Structure { nid: inode.nid, what: "not a symlink" });
        }
        self.read_file(inode, MAX_SYMLINK_BYTES as u64)
    }

    /// Copies the data out; holes come as zeros.
    ///
    /// # Errors
    /// [`ReadError`] when a part lies outside the image, or the destination fails.
    pub fn copy_file(&self, inode: &Inode, to: &mut dyn io::Write) -> Result<(), ReadError> {
        let mut block = [0; BLOCK_BYTES];
        for index in 0..inode.size.div_ceil(BLOCK_BYTES_U64) {
            let left = (inode.size - index * BLOCK_BYTES_U64).min(BLOCK_BYTES_U64);
            let part = &mut block[..left as usize];
            match self.offset_of(inode, index)? {
                Some(offset) => self.read("file data", offset, part)?,
                None => part.fill(0),
            }
            to.write_all(part).map_err(ReadError::Destination)?;
        }
        Ok(())
    }

    /// Offset of a block of a file; `None` for a hole.
    fn offset_of(&self, inode: &Inode, index: u64) -> Result<Option<u64>, ReadError> {
        let whole = inode.size / BLOCK_BYTES_U64;
        match inode.data {
            DataLayout::Inline if index >= whole => Ok(Some(inode.beside)),
            DataLayout::Plain | DataLayout::Inline => {
                Ok(Some((u64::from(inode.u) + index) * BLOCK_BYTES_U64))
            }
            DataLayout::Chunks => {
                let bits = inode.u;
                let mut entry = [0; 4];
                self.read("chunk map", inode.beside + (index >> bits) * 4, &mut entry)?;
                let block = u32::from_le_bytes(entry);
                let within = index & ((1 << bits) - 1);
                Ok((block != HOLE).then_some((u64::from(block) + within) * BLOCK_BYTES_U64))
            }
        }
    }

    fn read(&self, what: &'static str, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = self.blocks() * BLOCK_BYTES_U64;
        match offset.checked_add(buffer.len() as u64) {
            Some(last) if last <= end && offset >= BLOCK_BYTES_U64 => {
                self.source.read_exact_at(buffer, offset).map_err(ReadError::Source)
            }
            _ => Err(ReadError::Outside { what, offset, end }),
        }
    }
}

struct RawFields([u8; INODE_BYTES as usize]);

impl RawFields {
    fn u16_at(&self, offset: usize) -> u16 {
        u16::from_le_bytes(std::array::from_fn(|i| self.0[offset + i]))
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| self.0[offset + i]))
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[offset + i]))
    }

    fn meta(&self, xattrs: xattr::Xattrs) -> Result<Meta, ReadError> {
        let mtime_nanoseconds = self.u32_at(40);
        if mtime_nanoseconds >= 1_000_000_000 {
            let found = mtime_nanoseconds.into();
            return Err(ReadError::Field { what: "inode nanoseconds", found });
        }
        if self.u16_at(6) != 0 || self.0[48..].iter().any(|byte| *byte != 0) {
            return Err(ReadError::Field { what: "reserved inode bytes", found: 1 });
        }
        Ok(Meta {
            mode: self.u16_at(4) & !format::S_IFMT,
            uid: self.u32_at(24),
            gid: self.u32_at(28),
            mtime_seconds: self.u64_at(32) as i64,
            mtime_nanoseconds,
            xattrs,
        })
    }

    fn kind(&self) -> Result<FileKind, ReadError> {
        let (major, minor) = format::decode_device(self.u32_at(16));
        let mode = self.u16_at(4);
        Ok(match mode & format::S_IFMT {
            format::S_IFDIR => FileKind::Directory,
            format::S_IFREG => FileKind::File,
            format::S_IFLNK => FileKind::Symlink,
            format::S_IFCHR => FileKind::CharDevice { major, minor },
            format::S_IFBLK => FileKind::BlockDevice { major, minor },
            format::S_IFIFO => FileKind::Fifo,
            format::S_IFSOCK => FileKind::Socket,
            _ => return Err(ReadError::Field { what: "inode mode", found: mode.into() }),
        })
    }
}

impl Inode {
    fn checked(self) -> Result<Self, ReadError> {
        let field = |what, found| Err(ReadError::Field { what, found });
        let has_data =
            matches!(self.kind, FileKind::Directory | FileKind::File | FileKind::Symlink);
        if self.size > MAX_FILE_BYTES || (self.size > 0 && !has_data) {
            return field("inode size", self.size);
        }
        let tail = self.size % BLOCK_BYTES_U64;
        match self.data {
            DataLayout::Plain => Ok(self),
            // The kernel refuses a tail that crosses a block; reading on would give other bytes than it gives.
            DataLayout::Inline
                if tail == 0 || self.beside % BLOCK_BYTES_U64 + tail > BLOCK_BYTES_U64 =>
            {
                field("inline tail", tail)
            }
            DataLayout::Inline => Ok(self),
            DataLayout::Chunks if self.kind != FileKind::File || self.u > 31 => {
                field("chunk format", self.u.into())
            }
            DataLayout::Chunks if self.size.div_ceil(BLOCK_BYTES_U64 << self.u) > MAX_CHUNKS => {
                field("chunk count of a file with chunk format", self.u.into())
            }
            DataLayout::Chunks => Ok(self),
        }
    }
}
