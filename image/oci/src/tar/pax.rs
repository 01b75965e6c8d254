use std::collections::BTreeMap;

use super::{TarError, lossy};

/// Most extended attributes of one entry.
const MAX_XATTRS: usize = 256;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What pax records say about the entry that follows them (IEEE Std 1003.1, pax, "Extended Header"; GNU tar manual,
/// "Storing Sparse Files"; star(5) for SCHILY.xattr).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link_path: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// Seconds and nanoseconds.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) sparse_major: Option<u64>,
    pub(crate) sparse_minor: Option<u64>,
    pub(crate) sparse_name: Option<Vec<u8>>,
    pub(crate) sparse_real_size: Option<u64>,
}

/// Records that change nothing that a layer keeps: names of users (ids count), other times, comments, what the packer
/// saw on its own disk.
const IGNORED: [&[u8]; 16] = [
    b"atime",
    b"ctime",
    b"comment",
    b"uname",
    b"gname",
    b"charset",
    b"hdrcharset",
    b"LIBARCHIVE.creationtime",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"SCHILY.filetype",
    b"SCHILY.fflags",
    b"SCHILY.volhdr.label",
    b"GNU.volume.label",
    b"RHT.security.selinux",
];

/// Reads the records of one entry's extended header.
pub(crate) fn parse(data: &[u8]) -> Result<Pax, TarError> {
    let mut pax = Pax::default();
    let mut seen: Vec<&[u8]> = Vec::new();
    for record in Records(data) {
        let (key, value) = record?;
        if seen.contains(&key) {
            return Err(TarError::Extended { what: "a pax record stands twice" });
        }
        seen.push(key);
        pax.take(key, value)?;
    }
    Ok(pax)
}

/// Checks a global header: only records that change nothing may stand for all entries at once.
pub(crate) fn check_global(data: &[u8]) -> Result<(), TarError> {
    Records(data).try_for_each(|record| match record? {
        (key, _) if IGNORED.contains(&key) => Ok(()),
        (key, _) => Err(TarError::PaxKey { key: lossy(key) }),
    })
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.take_xattr(name, value);
        }
        // An empty value takes a record back (pax, "Extended Header"): the header's own field counts.
        if value.is_empty() || IGNORED.contains(&key) {
            return if known(key) { Ok(()) } else { Err(TarError::PaxKey { key: lossy(key) }) };
        }
        let number = || decimal(value).ok_or_else(|| bad_value(key, value));
        let id = || {
            let id = number().map(u32::try_from);
            // 2^32 - 1 is "no id" to Linux.
            id?.ok().filter(|id| *id != u32::MAX).ok_or_else(|| bad_value(key, value))
        };
        match key {
            b"path" => self.path = Some(text(key, value)?),
            b"linkpath" => self.link_path = Some(text(key, value)?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| bad_value(key, value))?),
            b"GNU.sparse.major" => self.sparse_major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse_minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse_name = Some(text(key, value)?),
            b"GNU.sparse.realsize" => self.sparse_real_size = Some(number()?),
            _ => return Err(TarError::PaxKey { key: lossy(key) }),
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        if self.xattrs.len() == MAX_XATTRS {
            let (found, expected) = (MAX_XATTRS as u64 + 1, MAX_XATTRS as u64);
            return Err(TarError::TooLarge {
                what: "number of extended attributes",
                found,
                expected,
            });
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }
}

fn known(key: &[u8]) -> bool {
    IGNORED.contains(&key)
        || matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
}

fn bad_value(key: &[u8], value: &[u8]) -> TarError {
    TarError::PaxValue { key: lossy(key), found: lossy(value) }
}

fn text(key: &[u8], value: &[u8]) -> Result<Vec<u8>, TarError> {
    if value.contains(&0) { Err(bad_value(key, value)) } else { Ok(value.to_vec()) }
}

/// Decimal digits up to 2^63 - 1.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'9' => {
            value.checked_mul(10)?.checked_add(u64::from(byte - b'0')).filter(|v| *v >> 63 == 0)
        }
        _ => None,
    })
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(halves.next()?)?).ok()?;
    let fraction = halves.next().unwrap_or_default();
    if fraction.len() > 32 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9)
        .map(|i| u32::from(fraction.get(i).map_or(0, |byte| byte - b'0')))
        .fold(0, |value, digit| value * 10 + digit);
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Records of the form `length key=value\n`, the length counting all of it.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), TarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or(TarError::Extended { what: "a pax record is not `length key=value`" }))
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(self.0.get(..space)?)?).ok()?;
        let record = self.0.get(..length)?;
        let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (body.get(..equals)?, body.get(equals + 1..)?);
        if key.is_empty() {
            return None;
        }
        self.0 = self.0.get(length..)?;
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|n| rest + n.to_string().len() == *n).unwrap();
        format!("{length} {key}={value}\n").into_bytes()
    }

    fn check(records: &[(&str, &str)], accept: bool) {
        let data: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        assert_eq!(parse(&data).is_ok(), accept, "{records:?}");
    }

    #[test]
    fn known_records_in_range_are_taken_and_others_refused() {
        check(&[("path", "a/b"), ("uid", "4294967294"), ("comment", "x")], true);
        check(&[("uid", "4294967295")], false);
        check(&[("uid", "-1")], false);
        check(&[("path", "a\0b")], false);
        check(&[("path", "a"), ("path", "b")], false);
        check(&[("size", "9223372036854775807")], true);
        check(&[("size", "9223372036854775808")], false);
        check(&[("GNU.sparse.map", "0,1")], false);
        check(&[("LIBARCHIVE.xattr.user.a", "eA")], false);
        check(&[("NEW.thing", "")], false);
        check(&[("path", "")], true);
        for (record, accept) in [
            (&b"9 path=a\n"[..], true),
            (b"8 path=a\n", false),
            (b"10 path=a\n", true),
            (b"11 path=a\n", false),
            (b"9 path=a ", false),
            (b"9 path=a\nx", false),
            (b"8 =path\n", false),
            (b"+9 path=\n", false),
        ] {
            assert_eq!(parse(record).is_ok(), accept, "{record:?}");
        }
    }

    #[test]
    fn global_records_may_not_change_entries() {
        assert!(check_global(&record("comment", "made by hand")).is_ok());
        assert!(check_global(&record("path", "elsewhere")).is_err());
        assert!(check_global(&record("SCHILY.xattr.user.a", "b")).is_err());
    }

    #[test]
    fn times_keep_nanoseconds() {
        let check = |text: &str, expect| assert_eq!(time(text.as_bytes()), expect, "{text}");
        check("1700000000.25", Some((1_700_000_000, 250_000_000)));
        check("1.0000000019", Some((1, 1)));
        check("-1.5", Some((-2, 500_000_000)));
        check("-3", Some((-3, 0)));
        check("1.2.3", None);
        check("", None);
        check("1e3", None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&data);
        }

        #[test]
        fn records_round_trip(key in "[a-z]{1,9}", value in ".{0,200}") {
            let data = record(&key, &value);
            let read: Vec<_> = Records(&data).map(Result::unwrap).collect();
            prop_assert_eq!(read, vec![(key.as_bytes(), value.as_bytes())]);
        }
    }
}
