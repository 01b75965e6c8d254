use super::{RECORD_BYTES, TarError, lossy};

/// One header block of 512 bytes.
pub(crate) struct Header<'a>(pub(crate) &'a [u8; RECORD_BYTES]);

/// Which fields stand behind the link name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    V7,
    Posix,
    Gnu,
}

impl Header<'_> {
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Compares the checksum and tells the header's flavor.
    pub(crate) fn check(&self) -> Result<Flavor, TarError> {
        let expected = self.unsigned("checksum", 148, 8)?;
        let field: u64 = self.0[148..156].iter().map(|byte| u64::from(*byte)).sum();
        let all: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        let found = all - field + 8 * u64::from(b' ');
        if found != expected {
            return Err(TarError::Checksum { found, expected });
        }
        match &self.0[257..265] {
            b"ustar\x0000" => Ok(Flavor::Posix),
            b"ustar  \0" => Ok(Flavor::Gnu),
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(Flavor::V7),
            other => Err(TarError::Magic { found: lossy(other) }),
        }
    }

    pub(crate) fn entry_type(&self) -> u8 {
        self.0[156]
    }

    /// The path: name, behind the prefix in a POSIX header.
    pub(crate) fn path(&self, flavor: Flavor) -> Vec<u8> {
        let (name, prefix) = (self.text(0, 100), self.text(345, 155));
        if flavor == Flavor::Posix && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(crate) fn link_name(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    fn text(&self, start: usize, length: usize) -> &[u8] {
        let field = &self.0[start..start + length];
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// A number that may be negative only in base-256 (modification time).
    pub(crate) fn signed(
        &self,
        field: &'static str,
        start: usize,
        length: usize,
    ) -> Result<i64, TarError> {
        number(&self.0[start..start + length])
            .and_then(|value| i64::try_from(value).ok())
            .ok_or_else(|| TarError::Number { field, found: lossy(&self.0[start..start + length]) })
    }

    /// A number from 0 to 2^63 - 1.
    pub(crate) fn unsigned(
        &self,
        field: &'static str,
        start: usize,
        length: usize,
    ) -> Result<u64, TarError> {
        u64::try_from(self.signed(field, start, length)?)
            .map_err(|_| TarError::Number { field, found: lossy(&self.0[start..start + length]) })
    }

    /// A number of 32 bits.
    pub(crate) fn u32(
        &self,
        field: &'static str,
        start: usize,
        length: usize,
    ) -> Result<u32, TarError> {
        u32::try_from(self.signed(field, start, length)?)
            .map_err(|_| TarError::Number { field, found: lossy(&self.0[start..start + length]) })
    }
}

/// Octal digits between spaces and NULs, or GNU base-256 (first bit set, two's complement, big endian). An empty field
/// is 0.
fn number(field: &[u8]) -> Option<i128> {
    match field.first()? {
        0x80 | 0xff => {
            let negative = field[0] == 0xff;
            // All of the field takes part; what does not fit 128 bits minus the sign is refused by the shift.
            field[1..].iter().try_fold(if negative { -1i128 } else { 0 }, |value, byte| {
                value.checked_mul(256).map(|value| value + i128::from(*byte))
            })
        }
        0x81..=0xfe => None,
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i128> {
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let digits: &[u8] =
        field[start..].split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    let rest = &field[start + digits.len()..];
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0i128, |value, byte| match byte {
        b'0'..=b'7' => Some(value * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_reading() {
        let check =
            |field: &[u8], expect: Option<i128>| assert_eq!(number(field), expect, "{field:?}");
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"77777777777\0", Some(0o77_777_777_777));
        check(b"\0\0\0\0", Some(0));
        check(b"12 34\0", None);
        check(b"128\0", None);
        check(b"-1\0", None);
        check(b"\x80\0\0\x02\x54\x0b\xe4\0", Some(10_000_000_000));
        check(b"\xff\xff\xff\xfe", Some(-2));
        check(b"\x81\0\0\0", None);
        check(b"\xfe\0\0\0", None);
    }
}
