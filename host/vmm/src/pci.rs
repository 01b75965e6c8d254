//! Where each device sits, and how Kata writes such a place.
//!
//! What is known before the start is cold plugged on `pcie.0`, eight functions to a slot. What comes later goes behind
//! conventional bridges, 31 disks each: a root port for each disk would cost boot time (64 idle ports under TCG: 2.6 s of
//! kernel time on a loaded machine, three bridges nothing that could be told from noise), and their slots are ACPI's to plug.

use std::fmt;

/// Slot of the vsock device.
pub(crate) const VSOCK_SLOT: u8 = 1;
/// Slot of the network card.
pub(crate) const NET_SLOT: u8 = 2;
/// First slot of the disks; slot 0 is the host bridge.
const FIRST_DISK_SLOT: u8 = 3;
const LAST_DISK_SLOT: u8 = 22;
/// First slot of the bridges. Slot 31 holds the ICH9 bridge of the q35 machine.
const FIRST_BRIDGE_SLOT: u8 = 23;
/// Bridges that fit.
pub(crate) const BRIDGES_MAX: u8 = 8;
/// Slots of a bridge that can be plugged: slot 0 is its hot-plug controller's.
const BRIDGE_SLOTS: usize = 31;
const FUNCTIONS: usize = 8;
/// Disks that fit before the start.
pub(crate) const DISKS_MAX: usize = (LAST_DISK_SLOT - FIRST_DISK_SLOT + 1) as usize * FUNCTIONS;

/// Place of a device. Its text is Kata's PCI path: for each bridge and the device two hex digits of the slot, then the
/// function after a dot unless it is 0, joined by `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciPath {
    /// Index of the bridge that it is behind.
    bridge: Option<u8>,
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

    /// The `bus` property of a QEMU device.
    pub(crate) fn qemu_bus(self) -> String {
        self.bridge.map_or_else(|| "pcie.0".into(), bridge_id)
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bridge) = self.bridge {
            write!(f, "{:02x}/", bridge_slot(bridge))?;
        }
        write!(f, "{:02x}", self.slot)?;
        match self.function {
            0 => Ok(()),
            function => write!(f, ".{function}"),
        }
    }
}

/// QEMU's name of a bridge.
pub(crate) fn bridge_id(index: u8) -> String {
    format!("bridge{index}")
}

/// Where a bridge sits on the root bus.
pub(crate) fn bridge_slot(index: u8) -> u8 {
    FIRST_BRIDGE_SLOT.saturating_add(index)
}

/// Place of the disk at this position of the list.
pub(crate) fn disk_path(index: usize) -> Option<PciPath> {
    if index >= DISKS_MAX {
        return None;
    }
    let slot = FIRST_DISK_SLOT.checked_add(u8::try_from(index / FUNCTIONS).ok()?)?;
    Some(PciPath { bridge: None, slot, function: u8::try_from(index % FUNCTIONS).ok()? })
}

/// Place of the disk that is plugged in as this one, behind so many bridges.
pub(crate) fn plugged_path(index: usize, bridges: u8) -> Option<PciPath> {
    let bridge = u8::try_from(index / BRIDGE_SLOTS).ok().filter(|bridge| *bridge < bridges)?;
    let slot = u8::try_from(index % BRIDGE_SLOTS).ok()?.checked_add(1)?;
    Some(PciPath { bridge: Some(bridge), slot, function: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: Option<PciPath>, expect: Option<(&str, &str, &str)>) {
        let found = place.map(|path| (path.to_string(), path.qemu_bus(), path.qemu_addr()));
        let expect = expect.map(|(kata, bus, addr)| (kata.into(), bus.into(), addr.into()));
        assert_eq!(found, expect);
    }

    #[test]
    fn positions_become_kata_paths() {
        check(disk_path(0), Some(("03", "pcie.0", "3.0")));
        check(disk_path(1), Some(("03.1", "pcie.0", "3.1")));
        check(disk_path(8), Some(("04", "pcie.0", "4.0")));
        check(disk_path(159), Some(("16.7", "pcie.0", "16.7")));
        check(disk_path(160), None);
    }

    #[test]
    fn what_is_plugged_in_goes_behind_the_bridges() {
        check(plugged_path(0, 1), Some(("17/01", "bridge0", "1.0")));
        check(plugged_path(30, 1), Some(("17/1f", "bridge0", "1f.0")));
        check(plugged_path(31, 1), None);
        check(plugged_path(31, 2), Some(("18/01", "bridge1", "1.0")));
        check(plugged_path(247, 8), Some(("1e/1f", "bridge7", "1f.0")));
        check(plugged_path(248, 8), None);
        check(plugged_path(0, 0), None);
    }
}
