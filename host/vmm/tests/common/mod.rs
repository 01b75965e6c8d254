//! A folder of its own for each test, and what is found in it and in the process table.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ah_vmm::{Accelerator, Network, RunDir, TeeLaunch, Tools, Vm, VmError, VmSpec, VsockBackend};
use rustix::process::Pid;
use tempfile::TempDir;

/// Longest that a clean-up may take on a busy machine; it takes about 10 ms on an idle one.
const LIMIT: Duration = Duration::from_secs(20);

/// A guest of a few instructions of 16-bit code, run from the reset vector.
pub(crate) enum Rom {
    /// Writes "hi" to the console and halts.
    Hello,
    /// Enters ACPI S5.
    PowerOff,
    /// Resets through port CF9.
    Reset,
    /// No file.
    Missing,
}

impl Rom {
    fn code(&self) -> &'static [u8] {
        match self {
            // mov dx, 3f8; mov al, c; out dx, al; ...; hlt; jmp $-1
            Self::Hello => &[
                0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee, 0xb0, b'\n', 0xee, 0xf4,
                0xeb, 0xfd,
            ],
            // PMBASE (00:1f.0, 40h) := 601h; ACPI_CNTL (44h) := 80h; PM1a control (604h) := SLP_EN
            Self::PowerOff => &[
                0x66, 0xb8, 0x40, 0xf8, 0x00, 0x80, 0xba, 0xf8, 0x0c, 0x66, 0xef, 0x66, 0xb8, 0x01,
                0x06, 0x00, 0x00, 0xba, 0xfc, 0x0c, 0x66, 0xef, 0x66, 0xb8, 0x44, 0xf8, 0x00, 0x80,
                0xba, 0xf8, 0x0c, 0x66, 0xef, 0xb0, 0x80, 0xba, 0xfc, 0x0c, 0xee, 0xba, 0x04, 0x06,
                0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd,
            ],
            // mov dx, cf9; mov al, 6; out dx, al
            Self::Reset => &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd],
            Self::Missing => &[],
        }
    }

    /// 64 KiB: code at F000, and at FFF0 (the reset vector) a jump there.
    fn image(&self) -> Vec<u8> {
        let mut rom = vec![0xf4; 0x1_0000];
        rom[0xf000..0xf000 + self.code().len()].copy_from_slice(self.code());
        // jmp near: F000 - FFF3 = F00D modulo 64 KiB
        rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0xf0]);
        rom
    }
}

pub(crate) struct Stage {
    base: TempDir,
    pub(crate) spec: VmSpec,
    pub(crate) tools: Tools,
}

impl Stage {
    pub(crate) fn new(rom: Rom) -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut tools = Tools::find(&[]).unwrap();
        tools.supervisor = env!("CARGO_BIN_EXE_ah-vm").into();
        let firmware = base.path().join("rom");
        if !matches!(rom, Rom::Missing) {
            fs::write(&firmware, rom.image()).unwrap();
        }
        let vsock = match tools.vsock_bridge {
            Some(_) => VsockBackend::User,
            None => {
                eprintln!("vsock left out: vhost-device-vsock was not found");
                VsockBackend::None
            }
        };
        let spec = VmSpec {
            kernel: None,
            initrd: None,
            firmware,
            cmdline: String::new(),
            vcpus: 1,
            memory_mib: 64,
            disks: Vec::new(),
            bridges: 0,
            network: Network::None,
            vsock,
            tee: TeeLaunch::None,
            accelerator: Accelerator::Tcg,
        };
        Self { base, spec, tools }
    }

    pub(crate) fn base(&self) -> &Path {
        self.base.path()
    }

    pub(crate) fn has_vsock_bridge(&self) -> bool {
        self.tools.vsock_bridge.is_some()
    }

    pub(crate) async fn start(&self) -> Result<Vm, VmError> {
        Vm::start(&self.spec, &self.tools, RunDir::create_in(self.base())?).await
    }

    /// Processes that have this test's folder on their command line or as their supervisor's plan, by name.
    pub(crate) fn processes(&self) -> Vec<(String, Pid)> {
        let base = self.base().to_str().unwrap();
        let all: Vec<Process> = Process::all();
        let named: Vec<&Process> =
            all.iter().filter(|p| p.arguments.iter().any(|a| a.contains(base))).collect();
        let parents = all.iter().filter(|p| {
            p.name == "anchorhold-vm" && named.iter().any(|child| child.parent == p.pid)
        });
        let launcher = |p: &&&Process| p.name.ends_with("/ah-vm");
        named
            .iter()
            .filter(|p| !launcher(p))
            .copied()
            .chain(parents)
            .filter_map(|p| Some((p.name.clone(), Pid::from_raw(p.pid)?)))
            .collect()
    }

    pub(crate) fn process(&self, name: &str) -> Pid {
        let found = self.processes().into_iter().find(|(known, _)| known.contains(name));
        found.unwrap_or_else(|| panic!("no {name} among {:?}", self.processes())).1
    }

    pub(crate) fn run_dirs(&self) -> usize {
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let entries = fs::read_dir(self.base()).unwrap().map(|entry| name(entry.unwrap()));
        entries.filter(|name| name.starts_with("anchorhold-")).count()
    }

    pub(crate) fn assert_running(&self) {
        assert!(self.processes().len() >= 2, "{:?}", self.processes());
        assert_eq!(self.run_dirs(), 1);
    }

    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), []);
        assert_eq!(self.run_dirs(), 0);
    }

    pub(crate) fn until_nothing_left(&self) {
        self.until(|| self.processes().is_empty() && self.run_dirs() == 0);
    }

    pub(crate) fn until(&self, met: impl Fn() -> bool) {
        let started = Instant::now();
        while !met() {
            assert!(started.elapsed() < LIMIT, "left: {:?}", self.processes());
            std::thread::yield_now();
        }
    }
}

struct Process {
    pid: i32,
    parent: i32,
    name: String,
    arguments: Vec<String>,
}

impl Process {
    fn all() -> Vec<Self> {
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| Self::read(e.path())).collect()
    }

    fn read(dir: PathBuf) -> Option<Self> {
        let pid = dir.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // pid (comm) state ppid
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let cmdline = String::from_utf8(fs::read(dir.join("cmdline")).ok()?).ok()?;
        let arguments: Vec<String> = cmdline.split('\0').map(str::to_owned).collect();
        let name = arguments.first()?.clone();
        (state != "Z").then_some(Self { pid, parent, name, arguments })
    }
}
