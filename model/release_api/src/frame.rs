//! A message on a byte stream: length as u32 big-endian, then that many bytes of JSON.

/// Longest message, bytes: a release request with certificate table is about 15 KiB, an answer with the longest
/// secret about 90 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Length of the header, bytes.
pub const HEADER_BYTES: usize = 4;

/// Why a frame cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than [`MAX_BODY_BYTES`].
    #[error("message has {found} bytes, expected at most {MAX_BODY_BYTES}")]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// The header announces a message without bytes.
    #[error("message is empty")]
    Empty,
}

/// The frame that carries `body`.
///
/// # Errors
/// [`FrameError`] when `body` is empty or too long.
pub fn encode(body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = checked_length(body.len())?;
    let header = u32::try_from(length).map_err(|_| FrameError::TooLong { found: length })?;
    let mut frame = Vec::with_capacity(HEADER_BYTES.saturating_add(length));
    frame.extend_from_slice(&header.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Length in bytes of the body that follows `header`; check it before making room for the body.
///
/// # Errors
/// [`FrameError`] when the announced body is empty or too long.
pub fn body_length(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    checked_length(usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX))
}

fn checked_length(found: usize) -> Result<usize, FrameError> {
    match found {
        0 => Err(FrameError::Empty),
        1..=MAX_BODY_BYTES => Ok(found),
        _ => Err(FrameError::TooLong { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_length_and_its_bytes() {
        assert_eq!(encode(b"{}").unwrap(), b"\0\0\0\x02{}");
        assert_eq!(body_length([0, 0, 0, 2]), Ok(2));
    }

    #[test]
    fn the_longest_message_passes_and_one_byte_more_does_not() {
        let longest = vec![b' '; MAX_BODY_BYTES];
        assert_eq!(encode(&longest).unwrap().len(), MAX_BODY_BYTES + HEADER_BYTES);
        assert_eq!(body_length([0, 4, 0, 0]), Ok(MAX_BODY_BYTES));
        assert_eq!(
            body_length([0, 4, 0, 1]),
            Err(FrameError::TooLong { found: MAX_BODY_BYTES + 1 })
        );
        assert_eq!(body_length([0xff; 4]), Err(FrameError::TooLong { found: u32::MAX as usize }));
        assert_eq!(body_length([0; 4]), Err(FrameError::Empty));
        assert_eq!(
            encode(&[longest, vec![b' ']].concat()),
            Err(FrameError::TooLong { found: MAX_BODY_BYTES + 1 })
        );
    }
}
