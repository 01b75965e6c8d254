//! Directory blocks: records of 12 bytes, then the names they point to; a block never shares a name with the next.

use crate::error::ReadError;
use crate::{BLOCK_BYTES, MAX_NAME_BYTES};

/// `struct erofs_dirent`: nid (8), name offset (2), type (1), reserved (1).
const RECORD_BYTES: usize = 12;

/// One entry, `.` and `..` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dirent<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) file_type: u8,
}

/// Length of a directory whose entries have these name lengths, in order, bytes.
pub(crate) fn directory_bytes(name_lengths: impl Iterator<Item = usize>) -> u64 {
    let (mut blocks, mut used) = (0u64, 0usize);
    for length in name_lengths {
        if used + RECORD_BYTES + length > BLOCK_BYTES {
            blocks += 1;
            used = 0;
        }
        used += RECORD_BYTES + length;
    }
    blocks * BLOCK_BYTES as u64 + used as u64
}

/// The directory's bytes: whole blocks, and a last one without padding.
pub(crate) fn encode(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = 0;
    while first < entries.len() {
        let mut used = 0;
        let fits = entries[first..]
            .iter()
            .take_while(|entry| {
                used += RECORD_BYTES + entry.name.len();
                used <= BLOCK_BYTES
            })
            .count();
        encode_block(&entries[first..first + fits], &mut out);
        first += fits;
        if first < entries.len() {
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        }
    }
    out
}

fn encode_block(entries: &[Dirent<'_>], out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * RECORD_BYTES;
    for entry in entries {
        out.extend(entry.nid.to_le_bytes());
        out.extend((name_offset as u16).to_le_bytes());
        out.extend([entry.file_type, 0]);
        name_offset += entry.name.len();
    }
    entries.iter().for_each(|entry| out.extend(entry.name));
}

/// Reads one directory block (the last one cut at the directory's length).
pub(crate) fn decode_block(block: &[u8]) -> Result<Vec<Dirent<'_>>, ReadError> {
    let bad = |what, found: usize| ReadError::Field { what, found: found as u64 };
    let record = |index: usize| -> Option<(u64, usize, u8, u8)> {
        let bytes: &[u8; RECORD_BYTES] =
            block.get(index * RECORD_BYTES..(index + 1) * RECORD_BYTES)?.try_into().ok()?;
        let nid = u64::from_le_bytes(*bytes.first_chunk()?);
        Some((nid, usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes[10], bytes[11]))
    };
    let (_, names, ..) = record(0).ok_or(bad("directory block length", block.len()))?;
    if names == 0 || names % RECORD_BYTES != 0 || names > block.len() {
        return Err(bad("first name offset", names));
    }
    let count = names / RECORD_BYTES;
    let mut entries = Vec::with_capacity(count);
    let mut expected = names;
    for index in 0..count {
        let (nid, start, file_type, reserved) = record(index).ok_or(bad("entry", index))?;
        let end = match record(index + 1) {
            Some((_, next, ..)) if index + 1 < count => next,
            _ => {
                block[names..].iter().rposition(|b| *b != 0).map_or(names, |last| names + last + 1)
            }
        };
        if start != expected || end <= start || end - start > MAX_NAME_BYTES || reserved != 0 {
            return Err(bad("name offset", start));
        }
        let name = block.get(start..end).ok_or(bad("name end", end))?;
        if name.contains(&0) || name.contains(&b'/') {
            return Err(bad("byte in the name at offset", start));
        }
        entries.push(Dirent { name, nid, file_type });
        expected = end;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_round_trip(names in prop::collection::btree_set("[a-z]{1,255}", 1..200)) {
            let entries: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(i, name)| Dirent { name: name.as_bytes(), nid: i as u64, file_type: 1 })
                .collect();
            let bytes = encode(&entries);
            let expected = directory_bytes(names.iter().map(String::len));
            prop_assert_eq!(bytes.len() as u64, expected);
            let read: Vec<_> =
                bytes.chunks(BLOCK_BYTES).flat_map(|block| decode_block(block).unwrap()).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn any_block_is_read_without_panic(block in prop::collection::vec(0u8..40, 0..200)) {
            let _ = decode_block(&block);
        }
    }
}
