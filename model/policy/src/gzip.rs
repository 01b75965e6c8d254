//! Bounded gzip: one member, nothing behind it, no more output than the named maximum.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::DocumentError;

/// Largest packed document, bytes.
pub const MAX_PACKED_BYTES: usize = 4 << 20;
/// Largest unpacked document, bytes.
pub const MAX_UNPACKED_BYTES: usize = 16 << 20;

/// Packs at the highest level, with no name and no time, so that equal input gives equal output.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to a Vec cannot fail; an empty result would be refused by every reader.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

pub(crate) fn unpack(what: &'static str, packed: &[u8]) -> Result<Vec<u8>, DocumentError> {
    if packed.len() > MAX_PACKED_BYTES {
        let (found, max) = (packed.len(), MAX_PACKED_BYTES);
        return Err(DocumentError::TooLarge { what, found, max });
    }
    let gzip = |detail: String| DocumentError::Gzip { what, detail };
    let mut decoder = GzDecoder::new(packed);
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_UNPACKED_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut bytes).map_err(|err| gzip(err.to_string()))?;
    if bytes.len() > MAX_UNPACKED_BYTES {
        let (found, max) = (bytes.len(), MAX_UNPACKED_BYTES);
        return Err(DocumentError::TooLarge { what, found, max });
    }
    match decoder.into_inner() {
        [] => Ok(bytes),
        rest => Err(gzip(format!("{} bytes behind the member", rest.len()))),
    }
}
