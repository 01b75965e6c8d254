//! What a VM is made of: values only, checked before anything is started.

use std::{net::Ipv4Addr, path::PathBuf};

use crate::{
    VmError,
    accelerator::Accelerator,
    pci::{self, PciPath},
    tee::TeeLaunch,
};

/// Longest virtio-blk serial, in bytes (virtio 1.2, 5.2.6: VIRTIO_BLK_ID_BYTES).
pub const SERIAL_MAX_BYTES: usize = 20;
/// vCPUs that the q35 machine of QEMU 7.2 takes without an interrupt remapper.
const VCPUS_MAX: u32 = 255;
/// Least memory that a kernel and the agent start in.
const MEMORY_MIN_MIB: u32 = 64;
/// x86 Linux: COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h) with its final zero byte.
const CMDLINE_MAX_BYTES: usize = 2047;

/// One virtual machine, complete: equal values give equal QEMU arguments apart from run-directory paths.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Linux kernel for direct boot; `None` stops in the firmware (for tests of the life cycle).
    pub kernel: Option<PathBuf>,
    /// Initial file system, handed over with the kernel.
    pub initrd: Option<PathBuf>,
    /// Firmware image: given explicitly so that the launch measurement is made from the bytes QEMU loads.
    pub firmware: PathBuf,
    /// Kernel command line, handed over byte for byte.
    pub cmdline: String,
    /// Number of virtual CPUs, 1 to 255.
    pub vcpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Disks in PCI order; the position gives the address, see [`VmSpec::disk_pci_path`].
    pub disks: Vec<Disk>,
    /// Bridges for disks that are plugged in later, 31 each, up to 4: see [`Vm::plug_disk`](crate::Vm::plug_disk).
    pub bridges: u8,
    /// Network card, if any.
    pub network: Network,
    /// How guest and host talk; `None` leaves the device out.
    pub vsock: VsockBackend,
    /// What keeps the host out of the guest's memory.
    pub tee: TeeLaunch,
    /// Who executes guest instructions.
    pub accelerator: Accelerator,
}

/// One virtio-blk disk backed by a raw file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The raw image.
    pub path: PathBuf,
    /// Serial that the guest reads, 1 to 20 printable ASCII characters, unique in the VM.
    pub serial: String,
    /// Whether writes are refused by QEMU (the file is then opened read-only too). What may be written goes with the VM: it is never flushed.
    pub read_only: bool,
}

impl Disk {
    /// A disk that nobody can write to.
    pub fn read_only(path: impl Into<PathBuf>, serial: impl Into<String>) -> Self {
        Self { path: path.into(), serial: serial.into(), read_only: true }
    }

    /// A disk that the guest writes to and that nobody reads again.
    pub fn scratch(path: impl Into<PathBuf>, serial: impl Into<String>) -> Self {
        Self { path: path.into(), serial: serial.into(), read_only: false }
    }

    pub(crate) fn check_serial(&self) -> Result<(), VmError> {
        let printable = self.serial.bytes().all(|byte| byte.is_ascii_graphic());
        match !self.serial.is_empty() && self.serial.len() <= SERIAL_MAX_BYTES && printable {
            true => Ok(()),
            false => Err(VmError::Spec {
                field: "disks.serial",
                found: format!("{:?}", self.serial),
                expected: format!("1 to {SERIAL_MAX_BYTES} printable ASCII characters"),
            }),
        }
    }
}

/// The guest's network card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// No card at all.
    #[default]
    None,
    /// QEMU's user-mode network (10.0.2.0/24, guest 10.0.2.15, gateway 10.0.2.2, DNS 10.0.2.3).
    User {
        /// Ports of the host that lead into the guest.
        forwards: Vec<HostForward>,
    },
    /// A tap device that QEMU makes in a network namespace: all processes of the VM then run in it, and the device
    /// is gone with QEMU.
    Tap {
        /// The namespace, as a file.
        namespace: PathBuf,
        /// Name of the tap device, up to 15 characters.
        name: String,
        /// The guest's hardware address, six bytes in hexadecimal with colons.
        hardware_address: String,
    },
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostForward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address of the host to listen on; 127.0.0.1 keeps it on this machine.
    pub host_address: Ipv4Addr,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the guest.
    pub guest_port: u16,
}

/// Transport protocol of a forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Name as QEMU's `hostfwd` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How vsock reaches the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VsockBackend {
    /// A `vhost-device-vsock` process where the program is found, else the kernel's device. The process
    /// comes first because its ports belong to this VM alone and need no rights on /dev/vhost-vsock.
    #[default]
    Auto,
    /// A `vhost-device-vsock` process.
    User,
    /// `/dev/vhost-vsock`. Host ports are then shared by every VM of the machine.
    Kernel,
    /// No vsock device.
    None,
}

impl VmSpec {
    /// PCI path of the disk with this serial, in Kata's form, the same before and after the start.
    pub fn disk_pci_path(&self, serial: &str) -> Option<PciPath> {
        let index = self.disks.iter().position(|disk| disk.serial == serial)?;
        pci::disk_path(index)
    }

    /// Checks everything that can be checked without the machine.
    ///
    /// # Errors
    /// [`VmError::Spec`] names the first field that cannot be run.
    pub fn check(&self) -> Result<(), VmError> {
        let refuse =
            |field, found: String, expected: String| Err(VmError::Spec { field, found, expected });
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return refuse("vcpus", self.vcpus.to_string(), format!("1 to {VCPUS_MAX}"));
        }
        if self.memory_mib < MEMORY_MIN_MIB {
            return refuse(
                "memory_mib",
                self.memory_mib.to_string(),
                format!("{MEMORY_MIN_MIB} or more"),
            );
        }
        if self.cmdline.len() > CMDLINE_MAX_BYTES || self.cmdline.contains(['\0', '\n']) {
            return refuse(
                "cmdline",
                format!("{} bytes", self.cmdline.len()),
                format!("one line of at most {CMDLINE_MAX_BYTES} bytes"),
            );
        }
        if self.kernel.is_none() && (self.initrd.is_some() || !self.cmdline.is_empty()) {
            return refuse(
                "kernel",
                "none".into(),
                "a kernel beside the initrd or command line".into(),
            );
        }
        if self.bridges > pci::BRIDGES_MAX {
            let expected = format!("at most {}", pci::BRIDGES_MAX);
            return refuse("bridges", self.bridges.to_string(), expected);
        }
        self.check_network()?;
        self.check_disks()
    }

    fn check_network(&self) -> Result<(), VmError> {
        let Network::Tap { name, hardware_address, .. } = &self.network else { return Ok(()) };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) {
            return Err(VmError::Spec {
                field: "network.name",
                found: format!("{name:?}"),
                expected: "1 to 15 of [A-Za-z0-9._-]".into(),
            });
        }
        let parts: Vec<&str> = hardware_address.split(':').collect();
        let hex =
            |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        match parts.len() == 6 && parts.iter().all(hex) {
            true => Ok(()),
            false => Err(VmError::Spec {
                field: "network.hardware_address",
                found: format!("{hardware_address:?}"),
                expected: "such as 52:54:00:12:34:56".into(),
            }),
        }
    }

    fn check_disks(&self) -> Result<(), VmError> {
        if self.disks.len() > pci::DISKS_MAX {
            return Err(VmError::Spec {
                field: "disks",
                found: self.disks.len().to_string(),
                expected: format!("at most {}", pci::DISKS_MAX),
            });
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.check_serial()?;
            if self.disks.iter().take(index).any(|other| other.serial == disk.serial) {
                return Err(VmError::Spec {
                    field: "disks.serial",
                    found: format!("{:?} twice", disk.serial),
                    expected: "each serial once".into(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> VmSpec {
        VmSpec {
            kernel: Some("/k/vmlinuz".into()),
            initrd: Some("/k/initrd".into()),
            firmware: "/f/bios.bin".into(),
            cmdline: "console=ttyS0 quiet".into(),
            vcpus: 2,
            memory_mib: 512,
            disks: vec![Disk::read_only("/d/a,b.img", "initdata")],
            bridges: 0,
            network: Network::None,
            vsock: VsockBackend::User,
            tee: TeeLaunch::None,
            accelerator: Accelerator::Tcg,
        }
    }

    fn check(change: impl FnOnce(&mut VmSpec), expect: Option<&str>) {
        let mut spec = spec();
        change(&mut spec);
        let found = match spec.check() {
            Ok(()) => None,
            Err(VmError::Spec { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn each_limit_beside_its_allowed_case() {
        check(|_| (), None);
        check(|s| s.vcpus = 0, Some("vcpus"));
        check(|s| s.vcpus = 256, Some("vcpus"));
        check(|s| s.memory_mib = 63, Some("memory_mib"));
        check(|s| s.cmdline = "a".repeat(2047), None);
        check(|s| s.cmdline = "a".repeat(2048), Some("cmdline"));
        check(|s| s.cmdline = "a\nb".into(), Some("cmdline"));
        check(|s| s.kernel = None, Some("kernel"));
        check(|s| s.bridges = 8, None);
        check(|s| s.bridges = 9, Some("bridges"));
        let tap = |name: &str, address: &str| Network::Tap {
            namespace: "/n".into(),
            name: name.into(),
            hardware_address: address.into(),
        };
        check(|s| s.network = tap("tap0", "02:00:00:00:00:0a"), None);
        check(|s| s.network = tap("tap0,script=/x", "02:00:00:00:00:0a"), Some("network.name"));
        check(|s| s.network = tap("tap0", "02:00:00:00:00"), Some("network.hardware_address"));
        check(|s| s.disks[0].serial = "x".repeat(20), None);
        check(|s| s.disks[0].serial = "x".repeat(21), Some("disks.serial"));
        check(|s| s.disks[0].serial = "a b".into(), Some("disks.serial"));
        check(|s| s.disks.push(Disk::read_only("/d/b", "initdata")), Some("disks.serial"));
    }

    #[test]
    fn more_than_a_hundred_disks_fit() {
        let disks = |count: usize| -> Vec<Disk> {
            (0..count).map(|i| Disk::read_only("/d", format!("s{i}"))).collect()
        };
        check(|s| s.disks = disks(pci::DISKS_MAX), None);
        check(|s| s.disks = disks(pci::DISKS_MAX + 1), Some("disks"));
        const { assert!(pci::DISKS_MAX > 128) };
    }
}
