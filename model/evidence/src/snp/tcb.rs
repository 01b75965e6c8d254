//! TCB versions and processor lines.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A processor line with its own root key and its own TCB layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Product {
    /// EPYC 7003, family 19h models 00h to 0Fh.
    Milan,
    /// EPYC 9004, 8004 (Genoa, Bergamo, Siena), family 19h models 10h to 1Fh and A0h to AFh.
    Genoa,
    /// EPYC 9005, family 1Ah models 00h to 11h.
    Turin,
    /// The line after Turin, family 1Ah models 50h to 57h, 90h to AFh, C0h to C7h.
    Venice,
}

impl Product {
    /// The line of a CPUID family and model (both combined with their extended parts); None for any other.
    pub fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Self::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Self::Genoa),
            (0x1A, 0x00..=0x11) => Some(Self::Turin),
            (0x1A, 0x50..=0x57 | 0x90..=0xAF | 0xC0..=0xC7) => Some(Self::Venice),
            _ => None,
        }
    }

    /// The name as AMD's certificates spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
            Self::Venice => "Venice",
        }
    }

    /// Whether TCB versions carry an FMC part and CHIP_ID only 8 bytes (VCEK specification, AMD document 57230).
    pub const fn has_fmc(self) -> bool {
        matches!(self, Self::Turin | Self::Venice)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// TCB_VERSION as it stands in a report. What the bytes mean depends on the processor line: [`TcbVersion::parts`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcbVersion(pub u64);

/// Security version numbers of one TCB version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbParts {
    /// Firmware of the microcontroller; zero on lines without one.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode, the lowest of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// Splits the version by the layout of `product`; None if a byte without a meaning on that line is set.
    pub fn parts(self, product: Product) -> Option<TcbParts> {
        let parts = match (product.has_fmc(), self.0.to_le_bytes()) {
            (false, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
                TcbParts { fmc: 0, boot_loader, tee, snp, microcode }
            }
            (true, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => {
                TcbParts { fmc, boot_loader, tee, snp, microcode }
            }
            _ => return None,
        };
        Some(parts)
    }
}

impl TcbParts {
    /// The version in the layout of `product`; None if FMC is set on a line that has none.
    pub fn version(self, product: Product) -> Option<TcbVersion> {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        let bytes = match (product.has_fmc(), fmc) {
            (true, _) => [fmc, boot_loader, tee, snp, 0, 0, 0, microcode],
            (false, 0) => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
            (false, _) => return None,
        };
        Some(TcbVersion(u64::from_le_bytes(bytes)))
    }

    /// True if no part is lower than in `floor`. Parts do not make up for each other.
    pub fn at_least(&self, floor: &Self) -> bool {
        self.fmc >= floor.fmc
            && self.boot_loader >= floor.boot_loader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Debug for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcbVersion({:#018x})", self.0)
    }
}

impl fmt::Display for TcbParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fmc != 0 {
            write!(f, "fmc {}, ", self.fmc)?;
        }
        let Self { boot_loader, tee, snp, microcode, .. } = self;
        write!(f, "boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuid_gives_the_line() {
        let cases = [
            (0x19, 0x00, Some(Product::Milan)),
            (0x19, 0x0F, Some(Product::Milan)),
            (0x19, 0x10, Some(Product::Genoa)),
            (0x19, 0x20, None),
            (0x19, 0xA0, Some(Product::Genoa)),
            (0x19, 0xAF, Some(Product::Genoa)),
            (0x19, 0xB0, None),
            (0x1A, 0x11, Some(Product::Turin)),
            (0x1A, 0x12, None),
            (0x1A, 0x50, Some(Product::Venice)),
            (0x18, 0x00, None),
        ];
        for (family, model, expect) in cases {
            assert_eq!(Product::of_cpuid(family, model), expect, "{family:#x} {model:#x}");
        }
    }

    #[test]
    fn layouts_differ_by_line() {
        let turin = TcbVersion(u64::from_le_bytes([1, 2, 3, 4, 0, 0, 0, 81]));
        let parts = TcbParts { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 81 };
        assert_eq!(turin.parts(Product::Turin), Some(parts));
        assert_eq!(turin.parts(Product::Genoa), None);
        assert_eq!(parts.version(Product::Turin), Some(turin));
        assert_eq!(parts.version(Product::Milan), None);
        let milan = TcbVersion(u64::from_le_bytes([4, 0, 0, 0, 0, 0, 24, 219]));
        let parts = TcbParts { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
        assert_eq!(milan.parts(Product::Milan), Some(parts));
        assert_eq!(parts.version(Product::Milan), Some(milan));
    }

    #[test]
    fn a_high_part_does_not_make_up_for_a_low_one() {
        let floor = TcbParts { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
        assert!(floor.at_least(&floor));
        assert!(!TcbParts { snp: 23, microcode: 255, ..floor }.at_least(&floor));
    }
}
