//! The SEV hash table: one page with the digests of command line, initrd and kernel (QEMU `target/i386/sev.c`, OVMF
//! `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`).

use ah_digest::Sha256;

use crate::PAGE_BYTES;

/// Length of the table with its padding to 16 bytes.
pub const TABLE_BYTES: usize = 176;
/// Length that the table says, without the padding.
const TABLE_LENGTH: u16 = 168;
const ENTRY_LENGTH: u16 = 50;

/// GUIDs in memory order: the first three groups little-endian (EFI GUID).
const TABLE: [u8; 16] = guid(0x9438d606, 0x4f22, 0x4cc9, 0xb479_a793d411fd21);
const CMDLINE: [u8; 16] = guid(0x97d02dd8, 0xbd20, 0x4c94, 0xaa78_e7714d36ab2a);
const INITRD: [u8; 16] = guid(0x44baf731, 0x3a2f, 0x4bd7, 0x9af1_41e29169781d);
const KERNEL: [u8; 16] = guid(0x4de79437, 0xabd2, 0x427f, 0xb835_d5b172d2045b);

/// An EFI GUID as it stands in memory; the last two groups of its text are given as one number.
pub(crate) const fn guid(a: u32, b: u16, c: u16, de: u64) -> [u8; 16] {
    let [a0, a1, a2, a3] = a.to_le_bytes();
    let [b0, b1] = b.to_le_bytes();
    let [c0, c1] = c.to_le_bytes();
    let [d0, d1, d2, d3, d4, d5, d6, d7] = de.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

/// Digests of what the firmware will be handed to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTable {
    /// SHA-256 of the command line and one NUL.
    pub cmdline: Sha256,
    /// SHA-256 of the initrd.
    pub initrd: Sha256,
    /// SHA-256 of the kernel.
    pub kernel: Sha256,
}

impl HashTable {
    /// Hashes the three.
    pub fn of(kernel: &[u8], initrd: &[u8], cmdline: &str) -> Self {
        let mut terminated = cmdline.as_bytes().to_vec();
        terminated.push(0);
        Self {
            cmdline: Sha256::of(terminated),
            initrd: Sha256::of(initrd),
            kernel: Sha256::of(kernel),
        }
    }

    /// The table with its padding.
    pub fn bytes(&self) -> [u8; TABLE_BYTES] {
        let mut table = Vec::with_capacity(TABLE_BYTES);
        table.extend(TABLE);
        table.extend(TABLE_LENGTH.to_le_bytes());
        for (guid, digest) in
            [(CMDLINE, self.cmdline), (INITRD, self.initrd), (KERNEL, self.kernel)]
        {
            table.extend(guid);
            table.extend(ENTRY_LENGTH.to_le_bytes());
            table.extend(digest.as_bytes());
        }
        let mut bytes = [0; TABLE_BYTES];
        for (slot, byte) in bytes.iter_mut().zip(table) {
            *slot = byte;
        }
        bytes
    }

    /// The page with the table at `offset`; None if it does not fit.
    pub fn page(&self, offset: usize) -> Option<[u8; PAGE_BYTES]> {
        let mut page = [0; PAGE_BYTES];
        let end = offset.checked_add(TABLE_BYTES)?;
        page.get_mut(offset..end)?.copy_from_slice(&self.bytes());
        Some(page)
    }
}
