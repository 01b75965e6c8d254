//! Nothing is left behind, whatever ends a VM: no process, no socket, no file.
//!
//! Real QEMU under TCG; the guest is a dozen instructions in place of the firmware.

mod common;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use ah_vmm::{RunDir, Vm, VmError, VmExit};
use common::{Rom, Stage};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

#[tokio::test]
async fn power_off_by_the_guest() {
    let stage = Stage::new(Rom::PowerOff);
    let vm = stage.start().await.unwrap();
    assert_eq!(vm.wait().await, VmExit::PoweredOff);
    vm.kill().await;
    stage.assert_nothing_left();
}

#[tokio::test]
async fn reset_by_the_guest_is_told_apart() {
    let stage = Stage::new(Rom::Reset);
    let vm = stage.start().await.unwrap();
    assert_eq!(vm.wait().await, VmExit::Reset);
    drop(vm);
    stage.assert_nothing_left();
}

#[tokio::test]
async fn shutdown_of_a_guest_that_never_ends() {
    let stage = Stage::new(Rom::Hello);
    let vm = stage.start().await.unwrap();
    stage.assert_running();
    assert_eq!(vm.shutdown(Duration::from_millis(10)).await, VmExit::Stopped);
    stage.assert_nothing_left();
}

#[tokio::test]
async fn drop_ends_the_vm() {
    let stage = Stage::new(Rom::Hello);
    drop(stage.start().await.unwrap());
    stage.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn console_is_kept() {
    let stage = Stage::new(Rom::Hello);
    let vm = stage.start().await.unwrap();
    stage.until(|| vm.console().text() == "hi");
    vm.kill().await;
    stage.assert_nothing_left();
}

#[tokio::test]
async fn crash_of_qemu() {
    let stage = Stage::new(Rom::Hello);
    let vm = stage.start().await.unwrap();
    kill(stage.process("qemu"), Signal::KILL);
    let VmExit::Crashed { process, status } = vm.wait().await else { panic!("not a crash") };
    assert_eq!((process.as_str(), status.as_str()), ("qemu", "signal: 9 (SIGKILL)"));
    // The supervisor cleans up without being asked.
    stage.until_nothing_left();
    drop(vm);
}

#[tokio::test]
async fn crash_of_the_vsock_device_ends_the_guest() {
    let stage = Stage::new(Rom::Hello);
    if !stage.has_vsock_bridge() {
        return;
    }
    let vm = stage.start().await.unwrap();
    kill(stage.process("vhost-device-vsock"), Signal::KILL);
    assert!(
        matches!(vm.wait().await, VmExit::Crashed { process, .. } if process == "vhost-device-vsock")
    );
    stage.until_nothing_left();
    drop(vm);
}

#[tokio::test]
async fn kill_9_of_the_supervisor() {
    let stage = Stage::new(Rom::Hello);
    let vm = stage.start().await.unwrap();
    kill(stage.process("anchorhold-vm"), Signal::KILL);
    assert!(matches!(vm.wait().await, VmExit::Crashed { process, .. } if process == "supervisor"));
    drop(vm);
    stage.until_nothing_left();
}

#[test]
fn kill_9_of_the_launcher() {
    let stage = Stage::new(Rom::Hello);
    let mut launcher = launch(&stage);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    stage.until_nothing_left();
}

#[test]
fn ctrl_c_in_the_launchers_terminal() {
    let stage = Stage::new(Rom::Hello);
    let mut launcher = launch(&stage);
    kill_process_group(Pid::from_child(&launcher), Signal::INT).unwrap();
    assert!(launcher.wait().unwrap().success());
    stage.assert_nothing_left();
}

#[test]
fn hang_up_of_the_launchers_terminal() {
    let stage = Stage::new(Rom::Hello);
    let mut launcher = launch(&stage);
    kill_process_group(Pid::from_child(&launcher), Signal::HUP).unwrap();
    launcher.wait().unwrap();
    stage.until_nothing_left();
}

#[test]
fn kill_9_of_launcher_and_supervisor_together() {
    let stage = Stage::new(Rom::Hello);
    let mut launcher = launch(&stage);
    let supervisor = stage.process("anchorhold-vm");
    kill(supervisor, Signal::STOP);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    kill(supervisor, Signal::KILL);
    // Nobody is left to remove the folder: the next VM does.
    stage.until(|| stage.processes().is_empty());
    assert_eq!(stage.run_dirs(), 1);
    drop(RunDir::create_in(stage.base()).unwrap());
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let stage = Stage::new(Rom::Missing);
    let error = stage.start().await.unwrap_err();
    let VmError::Start { process: "qemu", log, .. } = error else { panic!("{error}") };
    assert!(log.contains("could not load PC BIOS"), "{log}");
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_program_without_the_supervisor_call_is_named() {
    let mut stage = Stage::new(Rom::Hello);
    stage.tools.supervisor = "/bin/true".into();
    let error = stage.start().await.unwrap_err();
    assert!(error.to_string().contains("supervisor::run_if_asked"), "{error}");
    stage.assert_nothing_left();
}

#[tokio::test]
async fn confidential_guests_are_refused_where_qemu_cannot_make_them() {
    let mut stage = Stage::new(Rom::Hello);
    // A QEMU that knows no objects at all.
    stage.tools.qemu = "/bin/true".into();
    stage.spec.tee =
        ah_vmm::TeeLaunch::Tdx(ah_vmm::TdxLaunch { mr_config_id: [0; 48], quote_port: 1 });
    let error = stage.start().await.unwrap_err();
    assert!(matches!(error, VmError::Unsupported { .. }), "{error}");
    stage.assert_nothing_left();
}

#[tokio::test]
async fn a_port_without_listener_is_refused_while_the_guest_runs() {
    let stage = Stage::new(Rom::Hello);
    let vm: Vm = stage.start().await.unwrap();
    let error = vm.connect_within(1024, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, VmError::Timeout { .. }), "{error}");
    vm.kill().await;
    stage.assert_nothing_left();
}

/// Starts the launcher in a process group of its own, as a shell does, and waits for its VM.
fn launch(stage: &Stage) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ah-vm"));
    command
        .arg(&stage.spec.firmware)
        .env("XDG_RUNTIME_DIR", stage.base())
        .process_group(0)
        .stdout(Stdio::piped());
    let mut launcher = command.spawn().unwrap();
    let mut lines = std::io::BufReader::new(launcher.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(line.starts_with("started"), "{line}");
    launcher.stdout = Some(lines.into_inner());
    launcher
}

fn kill(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}
