use std::io::{self, Write};

use crate::tar_writer::{Entry, TarBuilder};

/// Bytes that look random (xorshift) and are the same for the same seed.
pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a layer of about `bytes` bytes with the mix of a distribution's base image: many small files, some large,
/// a directory for each hundred. About half of each file's bytes compress.
///
/// # Errors
/// When `out` fails.
pub fn random_layer(out: impl Write, bytes: u64) -> io::Result<()> {
    const SIZES: [usize; 8] = [300, 1_500, 3_000, 9_000, 700, 20_000, 90_000, 500_000];
    let mut tar = TarBuilder::new(out);
    let (mut written, mut number) = (0u64, 0u64);
    while written < bytes {
        if number.is_multiple_of(100) {
            tar.push(&Entry::dir(format!("d{:05}/", number / 100)))?;
        }
        let size = SIZES[(number % 8) as usize] + (number * 37 % 500) as usize;
        let mut data = random_bytes(number + 1, size / 2);
        data.extend(b"the quick brown fox ".iter().cycle().take(size - size / 2));
        tar.push(&Entry::file(format!("d{:05}/file{number:07}", number / 100), data))?;
        written += size as u64;
        number += 1;
    }
    tar.finish()?;
    Ok(())
}
