use std::io::{self, Read};

use ah_digest::Sha256;
use sha2::Digest as _;

/// Passes bytes on and fails at their end unless digest and length are the expected ones. What was read before the end
/// must not be believed until the end was reached.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    hasher: sha2::Sha256,
    expected: Sha256,
    left_bytes: u64,
    ended: bool,
}

impl<R: Read> VerifiedReader<R> {
    /// Reads `inner`, which must hold exactly `size_bytes` bytes with SHA-256 `expected`.
    pub fn new(inner: R, expected: Sha256, size_bytes: u64) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), expected, left_bytes: size_bytes, ended: false }
    }

    fn end(&mut self) -> io::Result<usize> {
        let found = Sha256::new(self.hasher.clone().finalize().into());
        if self.left_bytes != 0 {
            let text = format!("blob {} is short by {} bytes", self.expected, self.left_bytes);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        if found != self.expected {
            let text = format!("blob digest differs: found {found}, expected {}", self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.ended = true;
        Ok(0)
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        if read == 0 {
            return self.end();
        }
        let Some(left) = self.left_bytes.checked_sub(read as u64) else {
            let text = format!("blob {} is longer than its descriptor says", self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        self.left_bytes = left;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads a whole verified document of at most `max_bytes` bytes.
///
/// # Errors
/// When it is larger, or digest or length differ.
pub fn read_document(
    source: impl Read,
    expected: Sha256,
    size_bytes: u64,
    max_bytes: u64,
) -> io::Result<Vec<u8>> {
    if size_bytes > max_bytes {
        let text = format!(
            "document is too large: found {size_bytes} bytes, expected at most {max_bytes}"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::new();
    VerifiedReader::new(source, expected, size_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], size: u64, expect: Option<io::ErrorKind>) {
        let found = read_document(bytes, Sha256::of("abc"), size, 10);
        assert_eq!(found.err().map(|error| error.kind()), expect);
    }

    #[test]
    fn only_the_described_bytes_are_passed_on() {
        check(b"abc", 3, None);
        check(b"abd", 3, Some(io::ErrorKind::InvalidData));
        check(b"ab", 3, Some(io::ErrorKind::UnexpectedEof));
        check(b"abcd", 3, Some(io::ErrorKind::InvalidData));
        check(b"abc", 4, Some(io::ErrorKind::UnexpectedEof));
        check(b"abc", 11, Some(io::ErrorKind::InvalidData));
    }
}
