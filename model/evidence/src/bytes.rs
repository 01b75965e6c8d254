//! A forward-only reader and writer for fixed little-endian layouts; running out of bytes is an error, never a panic.

/// The input ended before the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Writes fields one behind the other into an array of exactly `N` bytes; the rest stays zero.
pub(crate) struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    pub(crate) fn put(&mut self, field: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(self.at).zip(field) {
            *slot = *byte;
        }
        self.skip(field.len());
    }

    pub(crate) fn skip(&mut self, zeros: usize) {
        self.at = self.at.saturating_add(zeros);
    }

    /// The array. The layouts here are constants, so a wrong sum is caught by the first round trip in a test.
    pub(crate) fn finish(self) -> [u8; N] {
        self.bytes
    }
}
