//! One running VM: start, vsock, ending.

use std::{
    io::Write,
    net::Shutdown as Direction,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Mutex, watch},
    task::JoinHandle,
    time::timeout,
};

use serde_json::json;

use crate::{
    ConsoleTail, Disk, Network, PciPath, RunDir, Tools, VmError, VmSpec, VsockListener, namespace,
    pci,
    qemu::{self, Sockets, VsockDevice},
    qmp::{self, Monitor},
    supervisor::{Event, Plan, ProcessPlan, SUPERVISE},
    tee,
    vsock::{self, Endpoint},
};

/// Time until QEMU greets; 40 ms on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time for the supervisor to end its children and remove the folder.
const CLEANUP_LIMIT: Duration = Duration::from_secs(5);
const QEMU: &str = "qemu";
const VSOCK_BRIDGE: &str = "vhost-device-vsock";
const VSOCK_SOCKET: &str = "v";
/// Between attempts to reach a port that nobody listens on yet.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
/// For the vsock device to take in what QEMU sent.
const DEVICE_PAUSE: Duration = Duration::from_millis(20);

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmExit {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest reset itself: with `panic=-1` on its command line, a kernel panic.
    Reset,
    /// [`Vm::shutdown`] or [`Vm::kill`].
    Stopped,
    /// QEMU, the vsock device or the supervisor ended by itself.
    Crashed {
        /// Which process.
        process: String,
        /// Its exit status.
        status: String,
    },
}

/// A running VM. Dropping it ends it; so does the end of the process that holds it.
#[derive(Debug)]
pub struct Vm {
    control: StdUnixStream,
    supervisor: Child,
    endpoint: Endpoint,
    monitor: Mutex<Option<Monitor>>,
    driver_up: AtomicBool,
    exit: watch::Receiver<Option<VmExit>>,
    console: ConsoleTail,
    log: ConsoleTail,
    disks: Vec<(String, PciPath)>,
    bridges: u8,
    confidential: bool,
    plugged: Mutex<Vec<String>>,
    started: Instant,
    _run_dir: RunDir,
}

impl Vm {
    /// Starts the VM and returns as soon as QEMU runs.
    ///
    /// # Errors
    /// [`VmError`] split by who can mend it; nothing is left behind in any case.
    pub async fn start(spec: &VmSpec, tools: &Tools, run_dir: RunDir) -> Result<Self, VmError> {
        spec.check()?;
        tee::check_supported(&spec.tee, &tools.qemu).await?;
        let started = Instant::now();
        let sockets = Sockets { monitor: run_dir.socket("qmp"), console: run_dir.socket("con") };
        let monitor = listen(&sockets.monitor)?;
        let console = listen(&sockets.console)?;
        let device = vsock::device(spec, tools, run_dir.socket("vu"))?;
        let plan = plan(spec, tools, &run_dir, &sockets, &device)?;
        let (supervisor, control) = match &spec.network {
            Network::Tap { namespace, .. } => {
                namespace::inside(namespace, || spawn_supervisor(tools, &plan))??
            }
            _ => spawn_supervisor(tools, &plan)?,
        };
        let (exit_sender, exit) = watch::channel(None);
        let mut vm = Self {
            control,
            supervisor,
            endpoint: endpoint(&device, &run_dir),
            monitor: Mutex::new(None),
            driver_up: AtomicBool::new(false),
            exit,
            console: ConsoleTail::default(),
            log: ConsoleTail::default(),
            disks: disk_paths(spec),
            bridges: spec.bridges,
            confidential: spec.tee.is_confidential(),
            plugged: Mutex::default(),
            started,
            _run_dir: run_dir,
        };
        // From here on, dropping `vm` ends what was started.
        vm.attach(monitor, console, exit_sender).await?;
        Ok(vm)
    }

    async fn attach(
        &mut self,
        monitor: UnixListener,
        console: UnixListener,
        exit: watch::Sender<Option<VmExit>>,
    ) -> Result<(), VmError> {
        let io = || VmError::io("talking to the vm supervisor");
        if let Some(stderr) = self.supervisor.stderr.take() {
            let stderr = tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))
                .map_err(io())?;
            tokio::spawn(self.log.clone().read(stderr));
        }
        let control = self.control.try_clone().map_err(io())?;
        control.set_nonblocking(true).map_err(io())?;
        let events = BufReader::new(UnixStream::from_std(control).map_err(io())?);
        let first_end: JoinHandle<FirstEnd> = tokio::spawn(follow(events));
        let greeted = async {
            let (console, _) = console.accept().await.map_err(io())?;
            tokio::spawn(self.console.clone().read(console));
            let (monitor, _) = monitor.accept().await.map_err(io())?;
            let mut monitor = Monitor::open(monitor).await?;
            monitor.command("cont").await?;
            Ok(monitor)
        };
        let mut first_end = first_end;
        let monitor = tokio::select! {
            greeted = timeout(START_LIMIT, greeted) => greeted
                .map_err(|_| VmError::Timeout { what: "the start of qemu", limit: START_LIMIT })?,
            end = &mut first_end => Err(self.start_failure(end.unwrap_or_default()).await),
        };
        // QEMU may have died between its greeting and its answer: then the supervisor knows why.
        let monitor = match monitor {
            Ok(monitor) => monitor,
            Err(VmError::Ended) => {
                let end = first_end.await.unwrap_or_default();
                return Err(self.start_failure(end).await);
            }
            Err(error) => return Err(error),
        };
        let shutdown = monitor.shutdown();
        *self.monitor.get_mut() = Some(monitor);
        tokio::spawn(async move {
            let end = first_end.await.unwrap_or_default();
            exit.send_replace(Some(vm_exit(end, shutdown).await));
        });
        Ok(())
    }

    async fn start_failure(&self, end: FirstEnd) -> VmError {
        // The reason is in what the process printed just before its end; the pipe closes with it.
        let _ = timeout(Duration::from_millis(200), async {
            while self.log.lines().is_empty() {
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
        })
        .await;
        let process = match end.process.as_str() {
            QEMU => "qemu",
            VSOCK_BRIDGE => "vhost-device-vsock",
            _ => "vm supervisor (the program must call supervisor::run_if_asked first)",
        };
        VmError::Start { process, status: end.status, log: self.log.text() }
    }

    /// When the start was asked for.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// PCI path of the disk with this serial.
    pub fn disk_pci_path(&self, serial: &str) -> Option<PciPath> {
        self.disks.iter().find(|(known, _)| known == serial).map(|(_, path)| *path)
    }

    /// Plugs a disk in and gives its PCI path; the guest finds it there a moment later. A disk with the same serial is
    /// there already: then nothing happens.
    ///
    /// # Errors
    /// [`VmError::Spec`] when the bridges are full or the serial is none, [`VmError::Monitor`] when QEMU refuses.
    pub async fn plug_disk(&self, disk: &Disk) -> Result<PciPath, VmError> {
        disk.check_serial()?;
        let mut plugged = self.plugged.lock().await;
        let known = plugged.iter().position(|serial| *serial == disk.serial);
        let index = known.unwrap_or(plugged.len());
        let path = pci::plugged_path(index, self.bridges).ok_or_else(|| VmError::Spec {
            field: "disks",
            found: format!("{} disks plugged in", plugged.len()),
            expected: format!("room behind {} bridges, 31 disks each", self.bridges),
        })?;
        if known.is_some() {
            return Ok(path);
        }
        let node = format!("plugged{index}");
        let file = std::path::absolute(&disk.path)
            .map_err(VmError::io(format!("resolving {}", disk.path.display())))?;
        let mut monitor = self.monitor.lock().await;
        let monitor = monitor.as_mut().ok_or(VmError::Ended)?;
        monitor.run("blockdev-add", qemu::blockdev(&node, &file, disk.read_only)).await?;
        let device = qemu::plugged_device(&node, index, &disk.serial, path, self.confidential);
        if let Err(error) = monitor.run("device_add", device).await {
            // what was opened for it is closed again; the first error is the one to tell
            let _ = monitor.run("blockdev-del", json!({"node-name": node})).await;
            return Err(error);
        }
        plugged.push(disk.serial.clone());
        Ok(path)
    }

    /// One attempt to reach a listener in the guest.
    ///
    /// vhost-device-vsock 0.3 loses its worker when an attempt arrives between the guest driver's memory map
    /// and its queues, a window of about a millisecond in the driver's start. A caller that knows a sign of
    /// life (a connection from the guest) waits for it; the others are held back here until QEMU says that the
    /// driver is up.
    ///
    /// # Errors
    /// [`VmError::Refused`] when nobody listens, [`VmError::Ended`] when the VM ends meanwhile.
    pub async fn connect(&self, port: u32) -> Result<UnixStream, VmError> {
        let mut exit = self.exit.clone();
        if !self.driver_is_up().await {
            return Err(VmError::Refused { port });
        }
        tokio::select! {
            connected = self.endpoint.connect(port) => match connected {
                Err(_) if self.exit.borrow().is_some() => Err(VmError::Ended),
                other => other,
            },
            _ = exit.wait_for(Option::is_some) => Err(VmError::Ended),
        }
    }

    /// Whether the guest's vsock driver has started, as far as QEMU can tell; asked until it has.
    async fn driver_is_up(&self) -> bool {
        if !matches!(self.endpoint, Endpoint::User(_)) || self.driver_up.load(Ordering::Relaxed) {
            return true;
        }
        let mut monitor = self.monitor.lock().await;
        let Some(monitor) = monitor.as_mut() else { return true };
        let up = monitor.vsock_driver_is_up(qemu::VSOCK_QOM_PATH).await;
        if up {
            // QEMU has sent the queues on their way to the device, which is another process.
            tokio::time::sleep(DEVICE_PAUSE).await;
            self.driver_up.store(true, Ordering::Relaxed);
        }
        up
    }

    /// Reaches a listener that may still have to start.
    ///
    /// # Errors
    /// [`VmError::Timeout`] when nobody listens in time, [`VmError::Ended`] when the VM ends meanwhile.
    pub async fn connect_within(&self, port: u32, limit: Duration) -> Result<UnixStream, VmError> {
        let attempts = async {
            loop {
                match self.connect(port).await {
                    Err(VmError::Refused { .. }) => tokio::time::sleep(CONNECT_PAUSE).await,
                    done => return done,
                }
            }
        };
        timeout(limit, attempts)
            .await
            .map_err(|_| VmError::Timeout { what: "the guest's listener", limit })?
    }

    /// Waits for the guest's connections to a port of the host (CID 2).
    ///
    /// # Errors
    /// [`VmError::Io`] when the port is taken.
    pub fn listen(&self, port: u32) -> Result<VsockListener, VmError> {
        self.endpoint.listen(port)
    }

    /// The last lines of the guest's console.
    pub fn console(&self) -> &ConsoleTail {
        &self.console
    }

    /// What QEMU and the vsock device printed.
    pub fn log(&self) -> &ConsoleTail {
        &self.log
    }

    /// How the VM ended, if it has.
    pub fn exit(&self) -> Option<VmExit> {
        self.exit.borrow().clone()
    }

    /// Waits for the VM's end.
    pub async fn wait(&self) -> VmExit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            _ => crashed("supervisor", "its observer ended"),
        }
    }

    /// Ends the VM: gives the guest this long to power itself off, then asks QEMU to quit, then kills.
    /// Returns when no process, socket or file of the VM is left.
    pub async fn shutdown(mut self, grace: Duration) -> VmExit {
        if timeout(grace, self.wait()).await.is_err() {
            if let Some(monitor) = self.monitor.get_mut() {
                // Refused or not, the next step ends it.
                let _ = monitor.command("quit").await;
            }
            let _ = timeout(Duration::from_secs(1), self.wait()).await;
        }
        let exit = self.exit().unwrap_or(VmExit::Stopped);
        self.kill().await;
        exit
    }

    /// Ends the VM's processes and waits for it; files and sockets go when the value is dropped.
    pub async fn stop(&self) {
        let _ = self.control.shutdown(Direction::Both);
        // A supervisor that does not end is killed by the drop.
        let _ = timeout(CLEANUP_LIMIT, self.wait()).await;
    }

    /// Ends the VM at once. Returns when no process, socket or file of it is left.
    pub async fn kill(self) {
        // Dropping waits for a few milliseconds.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.control.shutdown(Direction::Both);
        let asked = Instant::now();
        while asked.elapsed() < CLEANUP_LIMIT {
            match self.supervisor.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        // Its death kills its children.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn listen(path: &Path) -> Result<UnixListener, VmError> {
    UnixListener::bind(path).map_err(VmError::io(format!("listening on {}", path.display())))
}

fn endpoint(device: &VsockDevice, run_dir: &RunDir) -> Endpoint {
    match device {
        VsockDevice::None => Endpoint::None,
        VsockDevice::User(_) => Endpoint::User(run_dir.socket(VSOCK_SOCKET)),
        VsockDevice::Kernel(cid) => Endpoint::Kernel(*cid),
    }
}

fn disk_paths(spec: &VmSpec) -> Vec<(String, PciPath)> {
    let place = |disk: &Disk| Some((disk.serial.clone(), spec.disk_pci_path(&disk.serial)?));
    spec.disks.iter().filter_map(place).collect()
}

fn plan(
    spec: &VmSpec,
    tools: &Tools,
    run_dir: &RunDir,
    sockets: &Sockets,
    device: &VsockDevice,
) -> Result<Plan, VmError> {
    let mut processes = Vec::new();
    if let (VsockDevice::User(socket), Some(program)) = (device, &tools.vsock_bridge) {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        processes.push(ProcessPlan {
            name: VSOCK_BRIDGE.into(),
            program: program.clone(),
            arguments: vec![
                format!("--guest-cid={}", vsock::USER_CID),
                format!("--socket={}", text(socket)),
                format!("--uds-path={}", text(&run_dir.socket(VSOCK_SOCKET))),
            ],
            ready_socket: Some(socket.clone()),
        });
    }
    let arguments = qemu::arguments(&absolute(spec)?, sockets, device)
        .into_iter()
        .map(|argument| {
            argument.into_string().map_err(|found| VmError::Spec {
                field: "path",
                found: found.to_string_lossy().into_owned(),
                expected: "UTF-8".into(),
            })
        })
        .collect::<Result<_, _>>()?;
    processes.push(ProcessPlan {
        name: QEMU.into(),
        program: tools.qemu.clone(),
        arguments,
        ready_socket: None,
    });
    Ok(Plan { run_dir: run_dir.path().to_path_buf(), processes })
}

/// The VM's processes run in `/`, so that they hold no file system of the user's.
fn absolute(spec: &VmSpec) -> Result<VmSpec, VmError> {
    let mut spec = spec.clone();
    let paths = [Some(&mut spec.firmware), spec.kernel.as_mut(), spec.initrd.as_mut()];
    let disks = spec.disks.iter_mut().map(|disk| &mut disk.path);
    for path in paths.into_iter().flatten().chain(disks) {
        *path = std::path::absolute(&path)
            .map_err(VmError::io(format!("resolving {}", path.display())))?;
    }
    Ok(spec)
}

/// A process group of its own keeps the terminal's Ctrl-C away: the launcher decides what it means.
fn spawn_supervisor(tools: &Tools, plan: &Plan) -> Result<(Child, StdUnixStream), VmError> {
    let io = || VmError::io("starting the vm supervisor");
    let (mut ours, theirs) = StdUnixStream::pair().map_err(io())?;
    let child = Command::new(&tools.supervisor)
        .arg0("anchorhold-vm")
        .arg(SUPERVISE)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io())?;
    let mut line = serde_json::to_string(plan).map_err(|error| io()(error.into()))?;
    line.push('\n');
    // A supervisor that is gone already is reported by its missing answer, with its status.
    let _ = ours.write_all(line.as_bytes());
    Ok((child, ours))
}

/// The process that ended first, which ended the others.
#[derive(Debug, Default)]
struct FirstEnd {
    process: String,
    status: String,
    success: bool,
}

async fn follow(mut events: BufReader<UnixStream>) -> FirstEnd {
    let mut line = String::new();
    loop {
        line.clear();
        match events.read_line(&mut line).await {
            Ok(1..) => {}
            _ => {
                return FirstEnd {
                    process: "supervisor".into(),
                    status: "ended".into(),
                    success: false,
                };
            }
        }
        match serde_json::from_str(&line) {
            Ok(Event::Started { name, pid }) => tracing::debug!(name, pid, "vm process started"),
            Ok(Event::Failed { name, reason }) => {
                return FirstEnd { process: name, status: reason, success: false };
            }
            Ok(Event::Ended { name, status, success }) => {
                return FirstEnd { process: name, status, success };
            }
            Err(error) => {
                return FirstEnd {
                    process: "supervisor".into(),
                    status: error.to_string(),
                    success: false,
                };
            }
        }
    }
}

async fn vm_exit(end: FirstEnd, mut shutdown: watch::Receiver<Option<qmp::Shutdown>>) -> VmExit {
    if end.process != QEMU || !end.success {
        return crashed(&end.process, &end.status);
    }
    // QEMU is gone, so the monitor's reader is about to finish: an event that was sent is read by then.
    let _ = timeout(Duration::from_secs(1), shutdown.wait_for(Option::is_some)).await;
    let reason = shutdown.borrow().as_ref().map(|shutdown| shutdown.reason.clone());
    match reason.as_deref() {
        Some("guest-shutdown") => VmExit::PoweredOff,
        Some("guest-reset" | "guest-panic") => VmExit::Reset,
        _ => VmExit::Stopped,
    }
}

fn crashed(process: &str, status: &str) -> VmExit {
    VmExit::Crashed { process: process.into(), status: status.into() }
}
