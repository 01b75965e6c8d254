//! Starts one VM and stays until it ends: the launcher that the life-cycle tests kill, and a tool to time a
//! kernel with.
//!
//! `ah-vm FIRMWARE [KERNEL INITRD CMDLINE]`; prints when it started, then how the VM ended, and its console.
#![forbid(unsafe_code)]

use std::{env, error::Error};

use ah_vmm::{
    Accelerator, Network, RunDir, TeeLaunch, Tools, Vm, VmSpec, VsockBackend, supervisor,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn Error>> {
    supervisor::run_if_asked();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut spec = VmSpec {
        firmware: arguments.next().ok_or("usage: ah-vm FIRMWARE [KERNEL INITRD CMDLINE]")?.into(),
        kernel: arguments.next().map(Into::into),
        initrd: arguments.next().map(Into::into),
        cmdline: arguments.next().unwrap_or_default(),
        vcpus: 2,
        memory_mib: 512,
        disks: Vec::new(),
        bridges: 0,
        network: Network::None,
        vsock: VsockBackend::Auto,
        tee: TeeLaunch::None,
        accelerator: Accelerator::Tcg,
    };
    let tools = Tools::find(&[])?;
    if tools.vsock_bridge.is_none() {
        spec.vsock = VsockBackend::None;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let vm = Vm::start(&spec, &tools, RunDir::create()?).await?;
    println!("started after {:?}", vm.started().elapsed());
    tokio::select! {
        exit = vm.wait() => println!("{exit:?} after {:?}", vm.started().elapsed()),
        _ = interrupt.recv() => println!("interrupted"),
    }
    for line in vm.console().lines() {
        println!("{:?} {}", line.at.duration_since(vm.started()), line.text);
    }
    vm.kill().await;
    Ok(())
}
