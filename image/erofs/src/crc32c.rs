/// CRC-32C (Castagnoli, RFC 3720 appendix B.4, reflected polynomial 0x82f63b78) from an all-ones start and without the
/// final inversion, as the kernel's `crc32c(~0, ..)` that the EROFS superblock checksum is defined by.
pub(crate) fn crc32c_raw(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_answer() {
        assert_eq!(!super::crc32c_raw(b"123456789"), 0xe306_9283);
    }
}
