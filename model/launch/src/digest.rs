//! The chain of page hashes: SEV-SNP Firmware ABI (AMD document 56860), section "SNP_LAUNCH_UPDATE", PAGE_INFO.

use ah_digest::Sha384;
use sha2::Digest as _;

use crate::PAGE_BYTES;

/// PAGE_INFO is 70h bytes long and says so.
const PAGE_INFO_BYTES: u16 = 0x70;
/// GPA that stands for the pages of virtual processors.
const VMSA_GPA: u64 = 0xFFFF_FFFF_F000;

/// What a page is to the security processor.
#[derive(Clone, Copy)]
enum PageKind {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// A launch digest in the making: starts at zero, one step a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchDigest(Sha384);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self(Sha384::new([0; 48]))
    }
}

impl LaunchDigest {
    /// The digest of all pages so far.
    pub const fn value(&self) -> Sha384 {
        self.0
    }

    /// A page whose contents are measured.
    pub fn normal(&mut self, gpa: u64, page: &[u8; PAGE_BYTES]) {
        self.step(PageKind::Normal, gpa, Some(page));
    }

    /// The initial state of one virtual processor.
    pub fn vmsa(&mut self, page: &[u8; PAGE_BYTES]) {
        self.step(PageKind::Vmsa, VMSA_GPA, Some(page));
    }

    /// A page that the security processor fills with zeros.
    pub fn zero(&mut self, gpa: u64) {
        self.step(PageKind::Zero, gpa, None);
    }

    /// A page of which only the address is measured.
    pub fn unmeasured(&mut self, gpa: u64) {
        self.step(PageKind::Unmeasured, gpa, None);
    }

    /// The page that receives the guest's secrets.
    pub fn secrets(&mut self, gpa: u64) {
        self.step(PageKind::Secrets, gpa, None);
    }

    /// The page that receives the checked CPUID values.
    pub fn cpuid(&mut self, gpa: u64) {
        self.step(PageKind::Cpuid, gpa, None);
    }

    fn step(&mut self, kind: PageKind, gpa: u64, contents: Option<&[u8; PAGE_BYTES]>) {
        let mut hash = sha2::Sha384::new();
        hash.update(self.0.as_bytes());
        match contents {
            Some(page) => hash.update(sha2::Sha384::digest(page)),
            None => hash.update([0; 48]),
        }
        hash.update(PAGE_INFO_BYTES.to_le_bytes());
        // Page type, IMI flag, permissions of VMPL 3, 2, 1, one reserved byte.
        hash.update([kind as u8, 0, 0, 0, 0, 0]);
        hash.update(gpa.to_le_bytes());
        self.0 = Sha384::new(hash.finalize().into());
    }
}
