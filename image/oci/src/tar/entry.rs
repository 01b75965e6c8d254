use std::collections::BTreeMap;
use std::io::BufRead;

use super::header::{Flavor, Header};
use super::pax::{self, Pax};
use super::sparse::{self, SparseMap};
use super::{MAX_EXTENDED_BYTES, RECORD_BYTES, TarError};

/// Most headers of one tar, extended ones counted.
pub const MAX_ENTRIES: u64 = 1 << 22;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, pax records and long names applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as written; not checked.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: EntryKind,
    /// Link target of a hard or symbolic link, as written; not checked.
    pub link: Vec<u8>,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_seconds: i64,
    /// Modification time, nanoseconds beside the seconds.
    pub mtime_nanoseconds: u32,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// Extended attributes: full name to value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Length of the file, bytes.
    pub size: u64,
    /// Where the data of a sparse file belongs.
    pub sparse: Option<SparseMap>,
}

/// Reads a tar entry by entry from a stream.
#[derive(Debug)]
pub struct Entries<R> {
    body: Body<R>,
    headers: u64,
    ended: bool,
}

/// What extended headers said before an entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> Entries<R> {
    /// A tar at the start of `source`.
    pub fn new(source: R) -> Self {
        Self { body: Body { source, position: 0, left: 0, padding: 0 }, headers: 0, ended: false }
    }

    /// Offset in the tar of what is read next, bytes.
    pub fn position(&self) -> u64 {
        self.body.position
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end, all of the source being read:
    /// an end mark of zero blocks or the source's end at a block boundary, and nothing but zeros behind.
    ///
    /// # Errors
    /// [`TarError`] for everything that is not clearly an entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            self.body.skip_rest()?;
            let Some(block) = self.next_header()? else {
                return match pending {
                    Pending { pax: None, long_name: None, long_link: None } => Ok(None),
                    _ => Err(TarError::Extended { what: "nothing follows it" }),
                };
            };
            let header = Header(&block);
            let flavor = header.check()?;
            self.body.begin(header.unsigned("size", 124, 12)?);
            if !self.take_extended(&header, &mut pending)? {
                return self.make(&header, flavor, pending).map(Some);
            }
        }
    }

    /// Gives the entry's data to `take`, piece by piece, each with its offset in the file.
    ///
    /// # Errors
    /// [`TarError`] as an `E` when the source fails or ends; what `take` fails with.
    pub fn read_data<E: From<TarError>>(
        &mut self,
        entry: &Entry,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let whole = [(0, entry.size)];
        let regions = entry.sparse.as_ref().map_or(&whole[..], |map| &map.regions);
        for (offset, length) in regions {
            let mut done = 0;
            while done < *length {
                let piece = self.body.piece(*length - done)?;
                let read = piece.len();
                take(*offset + done, piece)?;
                self.body.consume(read);
                done += read as u64;
            }
        }
        Ok(())
    }

    fn next_header(&mut self) -> Result<Option<[u8; RECORD_BYTES]>, TarError> {
        let mut block = [0; RECORD_BYTES];
        if self.ended || !self.body.read_header(&mut block)? {
            self.ended = true;
            return Ok(None);
        }
        if Header(&block).is_zero() {
            self.ended = true;
            self.body.expect_zeros()?;
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > MAX_ENTRIES {
            let (what, found) = ("number of tar headers", self.headers);
            return Err(TarError::TooLarge { what, found, expected: MAX_ENTRIES });
        }
        Ok(Some(block))
    }

    /// Takes an extended header; false when the header is an entry's own.
    fn take_extended(
        &mut self,
        header: &Header<'_>,
        pending: &mut Pending,
    ) -> Result<bool, TarError> {
        let twice = TarError::Extended { what: "two of a kind stand before one entry" };
        match header.entry_type() {
            b'x' => {
                let pax = pax::parse(&self.body.read_extended()?)?;
                pending.pax.replace(pax).map_or(Ok(true), |_| Err(twice))
            }
            b'g' => {
                pax::check_global(&self.body.read_extended()?)?;
                Ok(true)
            }
            b'L' => {
                let name = self.body.read_long_name()?;
                pending.long_name.replace(name).map_or(Ok(true), |_| Err(twice))
            }
            b'K' => {
                let name = self.body.read_long_name()?;
                pending.long_link.replace(name).map_or(Ok(true), |_| Err(twice))
            }
            _ => Ok(false),
        }
    }

    fn make(
        &mut self,
        header: &Header<'_>,
        flavor: Flavor,
        pending: Pending,
    ) -> Result<Entry, TarError> {
        let pax = pending.pax.unwrap_or_default();
        if let Some(size) = pax.size {
            self.body.begin(size);
        }
        let sparse = self.sparse_map(header, flavor, &pax)?;
        let path = pax
            .sparse_name
            .or(pax.path)
            .or(pending.long_name)
            .unwrap_or_else(|| header.path(flavor));
        let kind = entry_kind(header.entry_type(), &path)?;
        if kind != EntryKind::File && self.body.left() != 0 {
            let (found, size) = (header.entry_type().into(), self.body.left());
            return Err(TarError::UnexpectedData { found, size });
        }
        let (mtime_seconds, mtime_nanoseconds) = match pax.mtime {
            Some(time) => time,
            None => (header.signed("mtime", 136, 12)?, 0),
        };
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice if flavor != Flavor::V7 => {
                (header.u32("devmajor", 329, 8)?, header.u32("devminor", 337, 8)?)
            }
            _ => (0, 0),
        };
        Ok(Entry {
            path,
            kind,
            link: pax.link_path.or(pending.long_link).unwrap_or_else(|| header.link_name()),
            mode: (header.unsigned("mode", 100, 8)? & 0o7777) as u16,
            uid: or_header(pax.uid, header, "uid", 108)?,
            gid: or_header(pax.gid, header, "gid", 116)?,
            mtime_seconds,
            mtime_nanoseconds,
            device,
            xattrs: pax.xattrs,
            size: sparse.as_ref().map_or(self.body.left(), |map| map.size),
            sparse,
        })
    }

    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        flavor: Flavor,
        pax: &Pax,
    ) -> Result<Option<SparseMap>, TarError> {
        let versions = (pax.sparse_major, pax.sparse_minor, pax.sparse_real_size);
        match (header.entry_type(), versions) {
            (b'S', (None, None, None)) if flavor == Flavor::Gnu && pax.sparse_name.is_none() => {
                sparse::read_gnu(header, &mut self.body).map(Some)
            }
            (b'0' | 0, (Some(1), Some(0), Some(size))) => {
                sparse::read_pax(size, &mut self.body).map(Some)
            }
            (b'S', _) => {
                Err(TarError::Sparse { what: "an old GNU map in a header of another kind" })
            }
            (_, (None, None, None)) if pax.sparse_name.is_none() => Ok(None),
            _ => Err(TarError::Sparse { what: "not of version 1.0 with a real size" }),
        }
    }
}

fn or_header(
    pax: Option<u32>,
    header: &Header<'_>,
    field: &'static str,
    start: usize,
) -> Result<u32, TarError> {
    let id = pax.map_or_else(|| header.u32(field, start, 8), Ok)?;
    if id == u32::MAX {
        return Err(TarError::Number { field, found: id.to_string() });
    }
    Ok(id)
}

fn entry_kind(entry_type: u8, path: &[u8]) -> Result<EntryKind, TarError> {
    let name = match entry_type {
        // Unix V7 had no type for directories.
        0 if path.ends_with(b"/") => return Ok(EntryKind::Directory),
        0 | b'0' | b'S' => return Ok(EntryKind::File),
        b'1' => return Ok(EntryKind::HardLink),
        b'2' => return Ok(EntryKind::Symlink),
        b'3' => return Ok(EntryKind::CharDevice),
        b'4' => return Ok(EntryKind::BlockDevice),
        b'5' => return Ok(EntryKind::Directory),
        b'6' => return Ok(EntryKind::Fifo),
        b'7' => "contiguous file",
        b'D' => "GNU directory listing",
        b'M' => "GNU continued file",
        b'N' => "old GNU long name",
        b'V' => "GNU volume name",
        b'A' => "Solaris access control list",
        b'E' => "Solaris extended attributes",
        b'I' => "star inode data",
        b'X' => "Sun extended header",
        _ => "unknown",
    };
    Err(TarError::EntryType { found: entry_type.into(), name })
}

/// The source, with a count of what is left of the current entry's data.
#[derive(Debug)]
pub(crate) struct Body<R> {
    source: R,
    position: u64,
    left: u64,
    padding: u64,
}

impl<R: BufRead> Body<R> {
    /// Data bytes of the current entry not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (RECORD_BYTES as u64 - size % RECORD_BYTES as u64) % RECORD_BYTES as u64;
    }

    /// Some of the next at most `most` data bytes; [`Body::consume`] moves past them.
    fn piece(&mut self, most: u64) -> Result<&[u8], TarError> {
        let expected = self.left;
        let most = most.min(self.left);
        let available = loop {
            match self.source.fill_buf() {
                Ok(buffer) => break buffer.len(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        };
        if available == 0 || most == 0 {
            return Err(TarError::Truncated { expected });
        }
        let buffer = self.source.fill_buf().map_err(TarError::Read)?;
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..length])
    }

    fn consume(&mut self, bytes: usize) {
        self.source.consume(bytes);
        self.left -= bytes as u64;
        self.position += bytes as u64;
    }

    /// Reads bytes of the data.
    pub(crate) fn read_inside(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        match self.left.checked_sub(buffer.len() as u64) {
            Some(left) => self.left = left,
            None => return Err(TarError::Truncated { expected: buffer.len() as u64 - self.left }),
        }
        self.read_outside(buffer)
    }

    /// Reads bytes that do not count as data.
    pub(crate) fn read_outside(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                TarError::Truncated { expected: buffer.len() as u64 }
            }
            _ => TarError::Read(error),
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Reads a header block; false when the source ends in front of it.
    fn read_header(&mut self, block: &mut [u8; RECORD_BYTES]) -> Result<bool, TarError> {
        if self.source.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Ok(false);
        }
        self.read_outside(block)?;
        Ok(true)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        self.left += std::mem::take(&mut self.padding);
        while self.left > 0 {
            let bytes = self.piece(self.left)?.len();
            self.consume(bytes);
        }
        Ok(())
    }

    fn read_extended(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MAX_EXTENDED_BYTES {
            let (what, found) = ("tar extended header", self.left);
            return Err(TarError::TooLarge { what, found, expected: MAX_EXTENDED_BYTES });
        }
        let mut data = vec![0; usize::try_from(self.left).unwrap_or(0)];
        self.read_inside(&mut data)?;
        Ok(data)
    }

    fn read_long_name(&mut self) -> Result<Vec<u8>, TarError> {
        let mut name = self.read_extended()?;
        if name.last() == Some(&0) {
            name.pop();
        }
        if name.is_empty() || name.contains(&0) {
            return Err(TarError::Extended { what: "a long name is empty or has a NUL inside" });
        }
        Ok(name)
    }

    fn expect_zeros(&mut self) -> Result<(), TarError> {
        loop {
            let buffer = self.source.fill_buf().map_err(TarError::Read)?;
            if buffer.is_empty() {
                return Ok(());
            }
            if buffer.iter().any(|byte| *byte != 0) {
                return Err(TarError::TrailingData);
            }
            let bytes = buffer.len();
            self.source.consume(bytes);
            self.position += bytes as u64;
        }
    }
}
