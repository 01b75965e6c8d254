//! Where each device sits on the root bus, and how Kata writes such a place.
//!
//! Everything is cold plugged on `pcie.0`: a root port for each disk would cost boot time (40 idle ports:
//! 0.7 s under TCG), eight functions to a slot cost none.

use std::fmt;

/// Slot of the vsock device.
pub(crate) const VSOCK_SLOT: u8 = 1;
/// Slot of the network card.
pub(crate) const NET_SLOT: u8 = 2;
/// First slot of the disks; slot 0 is the host bridge.
const FIRST_DISK_SLOT: u8 = 3;
/// Slot 31 holds the ICH9 bridge of the q35 machine.
const LAST_DISK_SLOT: u8 = 30;
const FUNCTIONS: usize = 8;
/// Disks that fit.
pub(crate) const DISKS_MAX: usize = (LAST_DISK_SLOT - FIRST_DISK_SLOT + 1) as usize * FUNCTIONS;

/// Place of a device on the root bus. Its text is Kata's PCI path: two hex digits of the slot, then the
/// function after a dot unless it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciPath {
    slot: u8,
    function: u8,
}

impl PciPath {
    /// Slot, 0 to 31.
    pub fn slot(self) -> u8 {
        self.slot
    }

    /// Function, 0 to 7.
    pub fn function(self) -> u8 {
        self.function
    }

    /// The `addr` property of a QEMU device.
    pub(crate) fn qemu_addr(self) -> String {
        format!("{:x}.{}", self.slot, self.function)
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.slot)?;
        match self.function {
            0 => Ok(()),
            function => write!(f, ".{function}"),
        }
    }
}

/// Place of the disk at this position of the list.
pub(crate) fn disk_path(index: usize) -> Option<PciPath> {
    if index >= DISKS_MAX {
        return None;
    }
    let slot = FIRST_DISK_SLOT.checked_add(u8::try_from(index / FUNCTIONS).ok()?)?;
    Some(PciPath { slot, function: u8::try_from(index % FUNCTIONS).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(index: usize, expect: Option<(&str, &str)>) {
        let found = disk_path(index).map(|path| (path.to_string(), path.qemu_addr()));
        assert_eq!(found, expect.map(|(kata, qemu)| (kata.to_owned(), qemu.to_owned())));
    }

    #[test]
    fn positions_become_kata_paths() {
        check(0, Some(("03", "3.0")));
        check(1, Some(("03.1", "3.1")));
        check(8, Some(("04", "4.0")));
        check(223, Some(("1e.7", "1e.7")));
        check(224, None);
    }
}
