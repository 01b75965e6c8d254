//! The QEMU command line, made from a specification without touching the machine.
//!
//! Paths and names go in as JSON wherever QEMU takes it, so that no character of a file name can become an
//! option.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    Accelerator, HostForward, Network, PciPath, TeeLaunch, VmSpec, VsockBackend,
    pci::{self, NET_SLOT, VSOCK_SLOT},
};

/// Everything that a chipset emulates and a pod does not use. `panic=-1` on the guest's command line turns a
/// kernel panic into a reset, and `-no-reboot` turns that into an ending.
const MACHINE: &str = "q35,hpet=off,usb=off,sata=off,smbus=off,vmport=off,smm=off,graphics=off,i8042=off,dump-guest-core=off,memory-backend=mem";
/// All vCPUs on one thread. With a thread each, one vCPU can run a translation of an instruction that another has
/// just patched: a Linux guest of two vCPUs died of its own jump labels (`Oops: int3`) in one boot of fourteen under
/// QEMU 7.2, in none of fourteen this way, and booted no slower.
///
/// `tb-size` bounds the code that QEMU keeps of the guest's, in [`TCG_CODE_MIB`]: without it, it is an eighth of the node's memory, up to 1 GiB
/// for each pod (QEMU 7.2, `tcg/region.c`). What does not fit is translated again.
const TCG: &str = "tcg,thread=single,tb-size=128";
/// What [`Accelerator::Tcg`] takes for code that it made, at most, MiB: a part of a pod's overhead.
pub const TCG_CODE_MIB: u32 = 128;
/// The save area of each vCPU is measured, and the CPU's signature is in it: a model by name has the same one on every host.
const SNP_CPU: &str = "EPYC-v4,-kvm-steal-time";
/// QEMU's own seccomp filter: a guest that breaks out finds no exec, no setuid, no scheduling calls.
const SECCOMP: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Hardware address of the guest's network card (QEMU's own range, 52:54:00).
pub const GUEST_MAC: &str = "52:54:00:12:34:56";

const VSOCK_ID: &str = "vsock0";
/// Where QEMU's object model has the virtio half of that device.
pub(crate) const VSOCK_QOM_PATH: &str = "/machine/peripheral/vsock0/virtio-backend";

/// How the vsock device is backed, decided before the arguments are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VsockDevice {
    None,
    /// Socket of the user-mode device.
    User(PathBuf),
    /// Context identifier on `/dev/vhost-vsock`.
    Kernel(u32),
}

/// Sockets of the launcher that QEMU connects to.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    pub(crate) monitor: PathBuf,
    pub(crate) console: PathBuf,
}

/// Arguments after the program's name.
pub(crate) fn arguments(spec: &VmSpec, sockets: &Sockets, vsock: &VsockDevice) -> Vec<OsString> {
    let mut args = Arguments::default();
    // Paused until the monitor listens: no event of a guest, however short its life, is lost.
    args.flags(&["-no-user-config", "-nodefaults", "-no-reboot", "-S"]);
    args.option("-display", "none");
    args.option("-sandbox", SECCOMP);
    args.option("-name", "anchorhold,debug-threads=off");
    machine(&mut args, spec);
    boot(&mut args, spec);
    chardev(&mut args, "qmp", &sockets.monitor);
    args.option("-mon", "chardev=qmp,mode=control");
    chardev(&mut args, "console", &sockets.console);
    args.option("-serial", "chardev:console");
    vsock_device(&mut args, spec, vsock);
    network(&mut args, spec);
    bridges(&mut args, spec);
    for (index, disk) in spec.disks.iter().enumerate() {
        // check() bounded the number of disks.
        let Some(place) = pci::disk_path(index) else { continue };
        let node = format!("disk{index}");
        args.json("-blockdev", blockdev(&node, &disk.path, disk.read_only));
        let mut device = disk_device(spec, &node, &disk.serial, place);
        if !disk.read_only {
            // Without it QEMU stops the guest, for good, when the host's disk is full.
            device["werror"] = "report".into();
            device["rerror"] = "report".into();
        }
        args.json("-device", device);
    }
    args.0
}

/// Arguments of a guest that only runs `firmware`, on the machine and CPU that every guest gets: a CPU model that
/// the accelerator cannot make is part of what a probe must find out.
pub(crate) fn probe_arguments(accelerator: Accelerator, firmware: &Path) -> Vec<OsString> {
    let spec = VmSpec {
        kernel: None,
        initrd: None,
        firmware: firmware.to_path_buf(),
        cmdline: String::new(),
        vcpus: 2,
        memory_mib: 64,
        disks: Vec::new(),
        bridges: 0,
        network: Network::None,
        vsock: VsockBackend::None,
        tee: TeeLaunch::None,
        accelerator,
    };
    let mut args = Arguments::default();
    args.flags(&["-no-user-config", "-nodefaults", "-no-reboot"]);
    args.option("-display", "none");
    machine(&mut args, &spec);
    boot(&mut args, &spec);
    args.0
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: Value) {
        self.option(name, value.to_string());
    }
}

fn machine(args: &mut Arguments, spec: &VmSpec) {
    args.option("-machine", format!("{MACHINE}{}", spec.tee.machine_suffix()));
    // Shared memory lets the user-mode vsock device see the guest's queues.
    let size = u64::from(spec.memory_mib) << 20;
    args.json(
        "-object",
        json!({"qom-type": "memory-backend-memfd", "id": "mem", "size": size, "share": true}),
    );
    if let Some(object) = spec.tee.object() {
        args.json("-object", object);
    }
    let (accelerator, cpu) = match spec.accelerator {
        Accelerator::Kvm => match spec.tee {
            TeeLaunch::None => ("kvm", "host"),
            TeeLaunch::Snp(_) => ("kvm", SNP_CPU),
            TeeLaunch::Tdx(_) => ("kvm", "host,-kvm-steal-time"),
        },
        Accelerator::Tcg => (TCG, "max,la57=off"),
    };
    args.option("-accel", accelerator);
    args.option("-cpu", cpu);
    args.option("-smp", spec.vcpus.to_string());
    args.option("-m", format!("{}M", spec.memory_mib));
}

fn boot(args: &mut Arguments, spec: &VmSpec) {
    args.option("-bios", &spec.firmware);
    if let Some(kernel) = &spec.kernel {
        args.option("-kernel", kernel);
        args.option("-append", &spec.cmdline);
    }
    if let Some(initrd) = &spec.initrd {
        args.option("-initrd", initrd);
    }
}

/// `-chardev` takes no JSON; a comma in a value is written twice.
fn chardev(args: &mut Arguments, id: &str, path: &Path) {
    let path = path.to_string_lossy().replace(',', ",,");
    args.option("-chardev", format!("socket,id={id},path={path},server=off"));
}

fn vsock_device(args: &mut Arguments, spec: &VmSpec, vsock: &VsockDevice) {
    let mut device = match vsock {
        VsockDevice::None => return,
        VsockDevice::User(socket) => {
            chardev(args, "vsock", socket);
            json!({"driver": "vhost-user-vsock-pci", "id": VSOCK_ID, "chardev": "vsock"})
        }
        VsockDevice::Kernel(cid) => json!({"driver": "vhost-vsock-pci", "guest-cid": cid}),
    };
    place(&mut device, spec, &format!("{VSOCK_SLOT:x}.0"));
    args.json("-device", device);
}

fn network(args: &mut Arguments, spec: &VmSpec) {
    let (netdev, hardware_address) = match &spec.network {
        Network::None => return,
        Network::User { forwards } => (user_network(forwards), GUEST_MAC),
        Network::Tap { name, hardware_address, .. } => {
            // The name was checked: no comma in it.
            (format!("tap,id=net,ifname={name},script=no,downscript=no"), hardware_address.as_str())
        }
    };
    args.option("-netdev", netdev);
    let mut device = json!({
        "driver": "virtio-net-pci",
        "netdev": "net",
        "mac": hardware_address,
        "romfile": "",
    });
    place(&mut device, spec, &format!("{NET_SLOT:x}.0"));
    args.json("-device", device);
}

fn user_network(forwards: &[HostForward]) -> String {
    // Without IPv6 the guest has the addresses that it is told of and no others.
    let mut netdev = "user,id=net,ipv6=off".to_owned();
    for forward in forwards {
        netdev.push_str(&format!(
            ",hostfwd={}:{}:{}-:{}",
            forward.protocol.name(),
            forward.host_address,
            forward.host_port,
            forward.guest_port
        ));
    }
    netdev
}

/// With their hot-plug controller, which nobody uses: its presence makes the firmware keep room for what is plugged in.
fn bridges(args: &mut Arguments, spec: &VmSpec) {
    for index in 0..spec.bridges {
        let device = json!({
            "driver": "pci-bridge",
            "id": pci::bridge_id(index),
            "chassis_nr": index.saturating_add(1),
            "shpc": true,
            "addr": format!("{:x}.0", pci::bridge_slot(index)),
        });
        args.json("-device", device);
    }
}

pub(crate) fn blockdev(node: &str, path: &Path, read_only: bool) -> Value {
    json!({
        "driver": "raw",
        "node-name": node,
        "read-only": read_only,
        "cache": {"no-flush": !read_only},
        "file": {"driver": "file", "filename": path, "read-only": read_only},
    })
}

/// Disks that are plugged in with interrupts of their own. An x86 processor has some 200 vectors for devices (Linux arch/x86/include/asm/irq_vectors.h) and a disk
/// takes two, so with one processor the 95th could not be used; those beyond these share the lines of the PCI bus.
const OWN_INTERRUPTS: usize = 72;

/// The device of the disk that is plugged in as this one.
pub(crate) fn plugged_device(
    node: &str,
    index: usize,
    serial: &str,
    path: PciPath,
    confidential: bool,
) -> Value {
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "drive": node,
        "serial": serial,
        "num-queues": 1,
        "bus": path.qemu_bus(),
        "addr": path.qemu_addr(),
        "disable-legacy": "on",
    });
    if index >= OWN_INTERRUPTS {
        device["vectors"] = 0.into();
    }
    if confidential {
        device["iommu_platform"] = true.into();
    }
    device
}

fn disk_device(spec: &VmSpec, node: &str, serial: &str, path: PciPath) -> Value {
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "drive": node,
        "serial": serial,
        "num-queues": 1,
        "multifunction": true,
    });
    place(&mut device, spec, &path.qemu_addr());
    device
}

fn place(device: &mut Value, spec: &VmSpec, address: &str) {
    device["addr"] = address.into();
    device["disable-legacy"] = "on".into();
    if spec.tee.is_confidential() {
        device["iommu_platform"] = true.into();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{Disk, Protocol, SnpLaunch, spec::tests::spec};

    fn arguments_of(change: impl FnOnce(&mut VmSpec)) -> Vec<String> {
        let mut spec = spec();
        change(&mut spec);
        let sockets = Sockets { monitor: "/r/qmp".into(), console: "/r/con".into() };
        arguments(&spec, &sockets, &VsockDevice::User("/r/vu".into()))
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    fn values(args: &[String], name: &str) -> Vec<String> {
        args.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn ordinary_guest() {
        let args = arguments_of(|_| ());
        assert_eq!(values(&args, "-bios"), ["/f/bios.bin"]);
        assert_eq!(values(&args, "-append"), ["console=ttyS0 quiet"]);
        assert_eq!(values(&args, "-accel"), [format!("tcg,thread=single,tb-size={TCG_CODE_MIB}")]);
        assert_eq!(values(&args, "-netdev"), [] as [&str; 0]);
        assert_eq!(values(&args, "-chardev")[2], "socket,id=vsock,path=/r/vu,server=off");
    }

    #[test]
    fn file_names_cannot_become_options() {
        let args = arguments_of(|s| s.disks = vec![Disk::read_only("/d/a,b\".img", "x")]);
        let blockdev: Value = serde_json::from_str(&values(&args, "-blockdev")[0]).unwrap();
        assert_eq!(blockdev["file"]["filename"], "/d/a,b\".img");
        assert_eq!(blockdev["read-only"], true);
        assert_eq!(blockdev["file"]["read-only"], true);
    }

    #[test]
    fn what_is_written_is_not_flushed_and_its_errors_are_the_guests() {
        let args = arguments_of(|s| s.disks.push(Disk::scratch("/d/s", "scratch")));
        let [fixed, scratch] = &values(&args, "-blockdev")[..] else { panic!("{args:?}") };
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (fixed, scratch) = (parsed(fixed), parsed(scratch));
        assert_eq!(
            (&fixed["read-only"], &fixed["cache"]["no-flush"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            (&scratch["read-only"], &scratch["cache"]["no-flush"]),
            (&json!(false), &json!(true))
        );
        let devices: Vec<Value> =
            values(&args, "-device").iter().map(|text| parsed(text)).collect();
        let of = |serial: &str| devices.iter().find(|device| device["serial"] == serial).unwrap();
        assert_eq!(of("scratch")["werror"], "report");
        assert_eq!(of("initdata")["werror"], Value::Null);
    }

    #[test]
    fn disks_share_slots() {
        let args = arguments_of(|s| {
            s.disks = (0..9).map(|n| Disk::read_only("/d", format!("s{n}"))).collect();
        });
        let devices = values(&args, "-device");
        let last: Value = serde_json::from_str(devices.last().unwrap()).unwrap();
        assert_eq!((&last["addr"], &last["serial"]), (&json!("4.0"), &json!("s8")));
    }

    #[test]
    fn host_ports_listen_where_asked() {
        let forward = HostForward {
            protocol: Protocol::Tcp,
            host_address: Ipv4Addr::LOCALHOST,
            host_port: 8080,
            guest_port: 80,
        };
        let args = arguments_of(|s| s.network = Network::User { forwards: vec![forward] });
        assert_eq!(
            values(&args, "-netdev"),
            ["user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80"]
        );
    }

    #[test]
    fn snp_guest_has_bounce_buffers_and_its_object() {
        let args = arguments_of(|s| {
            s.accelerator = Accelerator::Kvm;
            s.tee = TeeLaunch::Snp(SnpLaunch {
                host_data: [1; 32],
                policy: 0x3_0000,
                cbitpos: 51,
                reduced_phys_bits: 1,
            });
        });
        assert!(values(&args, "-machine")[0].ends_with("confidential-guest-support=tee0"));
        assert!(values(&args, "-object")[1].contains("sev-snp-guest"));
        assert_eq!(values(&args, "-cpu"), [SNP_CPU]);
        assert!(values(&args, "-device").iter().all(|device| device.contains("iommu_platform")));
    }
}
