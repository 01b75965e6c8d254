use crate::error::WriteError;
use crate::format::HOLE;
use crate::writer::{BlockSink, Output};
use crate::{
    BLOCK_BYTES, BLOCK_BYTES_U64, MAX_CHUNKS, MAX_CHUNKS_TOTAL, MAX_FILE_BYTES,
    MAX_INLINE_TAIL_BYTES, MAX_INLINE_TOTAL_BYTES,
};

/// Xattrs longer than this leave no room for a tail in the inode's block, bytes.
const MAX_XATTR_BESIDE_TAIL_BYTES: usize = 1024;
const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// What is known of a file before its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileShape {
    /// Length, bytes.
    pub size: u64,
    /// Whether only parts of it will be given, the rest being holes.
    pub sparse: bool,
    /// Bytes of its extended attributes, see [`crate::xattr_bytes`].
    pub xattr_bytes: usize,
}

/// Where a regular file's bytes are; made by the writer that took them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    pub(crate) size: u64,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Blocks from `start`; what is left of the size is the inline tail.
    Blocks { start: u32, tail: Box<[u8]> },
    /// One block address for each chunk of `2^bits` blocks.
    Chunks { bits: u8, map: Box<[u32]> },
}

impl FileData {
    /// Length, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A file whose bytes are arriving.
#[derive(Debug)]
pub(crate) enum OpenFile {
    Dense { size: u64, start: u32, written: u64, tail_from: u64, tail: Vec<u8> },
    Sparse { size: u64, written: u64, chunk: u64, bits: u8, map: Vec<u32> },
}

/// What files may still hold in memory until the metadata area is written.
#[derive(Debug)]
pub(crate) struct Budget {
    inline_bytes: usize,
    chunks: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { inline_bytes: MAX_INLINE_TOTAL_BYTES, chunks: MAX_CHUNKS_TOTAL }
    }
}

impl OpenFile {
    pub(crate) fn begin(
        shape: FileShape,
        start: u32,
        budget: &mut Budget,
    ) -> Result<Self, WriteError> {
        let size = shape.size;
        if size > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLong { found: size });
        }
        if shape.sparse && size > 0 {
            let bits = chunk_bits(size);
            let chunks = size.div_ceil(BLOCK_BYTES_U64 << bits);
            budget.chunks = budget.chunks.checked_sub(chunks).ok_or(WriteError::TooManyChunks)?;
            let map = vec![HOLE; chunks as usize];
            return Ok(Self::Sparse { size, written: 0, chunk: 0, bits, map });
        }
        let tail_bytes = (size % BLOCK_BYTES_U64) as usize;
        let inline = tail_bytes <= MAX_INLINE_TAIL_BYTES.min(budget.inline_bytes)
            && shape.xattr_bytes <= MAX_XATTR_BESIDE_TAIL_BYTES;
        let tail_from = if inline { size - tail_bytes as u64 } else { size };
        let tail = Vec::with_capacity((size - tail_from) as usize);
        if inline {
            budget.inline_bytes -= tail_bytes;
        }
        Ok(Self::Dense { size, start, written: 0, tail_from, tail })
    }

    pub(crate) fn write<S: BlockSink>(
        &mut self,
        offset: u64,
        bytes: &[u8],
        out: &mut Output<S>,
    ) -> Result<(), WriteError> {
        let end = offset.saturating_add(bytes.len() as u64);
        match self {
            Self::Dense { size, written, tail_from, tail, .. } => {
                if offset != *written || end > *size {
                    let expected = if offset != *written { *written } else { *size };
                    return Err(WriteError::FileData { found: end, expected });
                }
                let in_blocks = tail_from.saturating_sub(offset).min(bytes.len() as u64) as usize;
                let (blocks, rest) = bytes.split_at(in_blocks);
                out.put(blocks)?;
                tail.extend(rest);
                *written = end;
                Ok(())
            }
            Self::Sparse { size, written, .. } => {
                if offset < *written || end > *size {
                    let expected = if offset < *written { *written } else { *size };
                    return Err(WriteError::FileData { found: end, expected });
                }
                self.write_chunks(offset, bytes, out)
            }
        }
    }

    fn write_chunks<S: BlockSink>(
        &mut self,
        mut offset: u64,
        mut bytes: &[u8],
        out: &mut Output<S>,
    ) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let Self::Sparse { chunk, bits, map, .. } = self else { return Ok(()) };
            let chunk_bytes = BLOCK_BYTES_U64 << *bits;
            let wanted = offset / chunk_bytes;
            if map[wanted as usize] == HOLE {
                self.pad_chunk(out)?;
                let Self::Sparse { chunk, map, written, .. } = self else { return Ok(()) };
                *chunk = wanted;
                map[wanted as usize] = out.next_block()?;
                *written = wanted * chunk_bytes;
                continue;
            }
            let room = (*chunk + 1) * chunk_bytes - offset;
            let (now, later) = bytes.split_at(room.min(bytes.len() as u64) as usize);
            let Self::Sparse { written, .. } = self else { return Ok(()) };
            out.put_zeros(offset - *written)?;
            out.put(now)?;
            offset += now.len() as u64;
            *written = offset;
            bytes = later;
        }
        Ok(())
    }

    /// Fills the open chunk with zeros up to its end or the file's last block.
    fn pad_chunk<S: BlockSink>(&mut self, out: &mut Output<S>) -> Result<(), WriteError> {
        let Self::Sparse { size, written, chunk, bits, map } = self else { return Ok(()) };
        if map.get(*chunk as usize).is_none_or(|block| *block == HOLE) {
            return Ok(());
        }
        let file_end = size.next_multiple_of(BLOCK_BYTES_U64);
        let end = ((*chunk + 1) * (BLOCK_BYTES_U64 << *bits)).min(file_end);
        out.put_zeros(end - *written)?;
        *written = end;
        Ok(())
    }

    pub(crate) fn end<S: BlockSink>(mut self, out: &mut Output<S>) -> Result<FileData, WriteError> {
        self.pad_chunk(out)?;
        match self {
            Self::Dense { size, written, .. } if written != size => {
                Err(WriteError::FileData { found: written, expected: size })
            }
            Self::Dense { size, start, tail, .. } => {
                out.pad_block()?;
                Ok(FileData { size, place: Place::Blocks { start, tail: tail.into() } })
            }
            Self::Sparse { size, bits, map, .. } => {
                Ok(FileData { size, place: Place::Chunks { bits, map: map.into() } })
            }
        }
    }
}

/// Smallest chunk (in powers of two of a block) of which a file of `size` bytes has at most [`MAX_CHUNKS`].
fn chunk_bits(size: u64) -> u8 {
    (0..31).find(|bits| size.div_ceil(BLOCK_BYTES_U64 << bits) <= MAX_CHUNKS).unwrap_or(31)
}

impl<S: BlockSink> Output<S> {
    /// Appends `count` zero bytes.
    pub(crate) fn put_zeros(&mut self, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            let now = count.min(BLOCK_BYTES_U64);
            self.put(&ZEROS[..now as usize])?;
            count -= now;
        }
        Ok(())
    }

    /// Appends zeros up to the next block boundary.
    pub(crate) fn pad_block(&mut self) -> Result<(), WriteError> {
        self.put_zeros((BLOCK_BYTES_U64 - self.offset() % BLOCK_BYTES_U64) % BLOCK_BYTES_U64)
    }
}

const _: () = assert!(MAX_INLINE_TAIL_BYTES <= MAX_INLINE_TOTAL_BYTES);
const _: () = assert!(MAX_XATTR_BESIDE_TAIL_BYTES + MAX_INLINE_TAIL_BYTES + 64 <= BLOCK_BYTES);
const _: () = assert!(MAX_FILE_BYTES <= MAX_CHUNKS * (BLOCK_BYTES_U64 << 31));
