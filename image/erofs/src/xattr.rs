use std::collections::BTreeMap;

use crate::error::{ReadError, WriteError};

/// Most bytes of extended attributes at one inode, as stored. Linux lists at most 64 KiB of names, and the count field
/// is 16 bits of 4-byte units.
pub const MAX_XATTR_BYTES: usize = 128 << 10;

/// `struct erofs_xattr_ibody_header` without shared attributes, bytes.
const HEADER_BYTES: usize = 12;
/// `struct erofs_xattr_entry`, bytes.
const ENTRY_BYTES: usize = 4;
/// Name spaces as `e_name_index` gives them. The two ACLs are whole names and have an empty rest.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes that `xattrs` (full name to value) take behind an inode.
///
/// # Errors
/// [`WriteError::XattrName`] or [`WriteError::XattrSize`] when they cannot be stored.
pub fn xattr_bytes(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<usize, WriteError> {
    if xattrs.is_empty() {
        return Ok(0);
    }
    let mut total = HEADER_BYTES;
    for (name, value) in xattrs {
        let (_, rest) = split(name)?;
        if value.len() > usize::from(u16::MAX) {
            let expected = usize::from(u16::MAX);
            return Err(WriteError::XattrSize { found: value.len(), expected });
        }
        total += (ENTRY_BYTES + rest.len() + value.len()).next_multiple_of(4);
        if total > MAX_XATTR_BYTES {
            return Err(WriteError::XattrSize { found: total, expected: MAX_XATTR_BYTES });
        }
    }
    Ok(total)
}

fn split(name: &[u8]) -> Result<(u8, &[u8]), WriteError> {
    PREFIXES
        .iter()
        .find_map(|(index, prefix)| {
            let rest = name.strip_prefix(*prefix)?;
            let whole = prefix.last() != Some(&b'.');
            (whole == rest.is_empty() && rest.len() <= 255 && !rest.contains(&0))
                .then_some((*index, rest))
        })
        .ok_or_else(|| WriteError::XattrName { found: String::from_utf8_lossy(name).into_owned() })
}

/// `i_xattr_icount` for a body of `bytes`.
pub(crate) fn count_field(bytes: usize) -> u16 {
    match bytes.checked_sub(HEADER_BYTES) {
        Some(entries) => u16::try_from(entries / 4 + 1).unwrap_or(u16::MAX),
        None => 0,
    }
}

/// Bytes of a body whose `i_xattr_icount` is `count`.
pub(crate) fn bytes_of_count(count: u16) -> usize {
    match count.checked_sub(1) {
        Some(units) => HEADER_BYTES + usize::from(units) * 4,
        None => 0,
    }
}

/// The body that follows an inode.
pub(crate) fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::with_capacity(xattr_bytes(xattrs)?);
    if !xattrs.is_empty() {
        out.resize(HEADER_BYTES, 0);
    }
    for (name, value) in xattrs {
        let (index, rest) = split(name)?;
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes();
        out.extend([rest.len() as u8, index, length[0], length[1]]);
        out.extend(rest);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(out)
}

/// Reads a body; the inverse of [`encode`], and nothing else is accepted.
pub(crate) fn decode(body: &[u8]) -> Result<Xattrs, ReadError> {
    let bad = |what| ReadError::Field { what, found: body.len() as u64 };
    let mut xattrs = Xattrs::new();
    if body.is_empty() {
        return Ok(xattrs);
    }
    let mut rest = body.get(HEADER_BYTES..).ok_or(bad("xattr body of length"))?;
    while let Some((&[name_length, index, low, high], tail)) = rest.split_first_chunk() {
        let (name_length, value_length) =
            (usize::from(name_length), usize::from(u16::from_le_bytes([low, high])));
        let prefix = PREFIXES.iter().find(|(known, _)| *known == index);
        let (_, prefix) = prefix.ok_or(bad("xattr name space in a body of length"))?;
        let end = (ENTRY_BYTES + name_length + value_length).next_multiple_of(4);
        let name = tail.get(..name_length).ok_or(bad("xattr name in a body of length"))?;
        let value = tail.get(name_length..name_length + value_length);
        let value = value.ok_or(bad("xattr value in a body of length"))?;
        xattrs.insert([prefix, name].concat(), value.to_vec());
        rest = rest.get(end..).ok_or(bad("xattr padding in a body of length"))?;
    }
    match encode(&xattrs) {
        Ok(canonical) if canonical == body => Ok(xattrs),
        _ => Err(bad("xattr order or padding in a body of length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(name: &str, value: usize) -> Xattrs {
        [(name.as_bytes().to_vec(), vec![7; value])].into()
    }

    #[test]
    fn name_spaces_are_the_formats() {
        for name in ["user.a", "trusted.overlay.opaque", "security.capability"] {
            assert_eq!(decode(&encode(&one(name, 5)).unwrap()).unwrap(), one(name, 5));
        }
        assert_eq!(encode(&one("system.posix_acl_access", 4)).unwrap().len(), 12 + 8);
        for name in ["user.", "system.nfs4_acl", "system.posix_acl_access2", "lustre.x", "user"] {
            assert!(matches!(encode(&one(name, 1)), Err(WriteError::XattrName { .. })), "{name}");
        }
    }

    #[test]
    fn sizes_end_at_their_maximum() {
        assert!(xattr_bytes(&one("user.a", 65535)).is_ok());
        let over = xattr_bytes(&one("user.a", 65536));
        assert!(matches!(over, Err(WriteError::XattrSize { found: 65536, .. })));
        let many: Xattrs =
            (0..3).map(|i| (format!("user.{i}").into_bytes(), vec![0; 65535])).collect();
        assert!(matches!(xattr_bytes(&many), Err(WriteError::XattrSize { .. })));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic_and_in_one_form(body in prop::collection::vec(0u8..8, 0..64)) {
            if let Ok(xattrs) = decode(&body) {
                prop_assert_eq!(encode(&xattrs).unwrap(), body);
            }
        }
    }
}
