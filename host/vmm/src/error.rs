//! What can go wrong while a VM is started, run or ended, split by who can mend it.

use std::{io, path::PathBuf, time::Duration};

/// Failure of a VM operation.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The caller's [`VmSpec`](crate::VmSpec) cannot be run by anybody.
    #[error("vm specification refused: {field} is {found}, expected {expected}")]
    Spec {
        /// Field of the specification.
        field: &'static str,
        /// What it held.
        found: String,
        /// What it may hold.
        expected: String,
    },
    /// A program that the VM needs is not on this machine.
    #[error("program not found: {program}, looked in {looked_in}")]
    ToolMissing {
        /// Name of the program.
        program: &'static str,
        /// Places that were searched.
        looked_in: String,
    },
    /// The machine, its CPU or its QEMU cannot do what the specification asks.
    #[error("this machine cannot start the vm: {what}: found {found}, expected {expected}")]
    Unsupported {
        /// The capability.
        what: &'static str,
        /// What the machine has.
        found: String,
        /// What was needed.
        expected: &'static str,
    },
    /// A unix socket path does not fit the kernel's address structure.
    #[error("socket path too long: found {found} bytes in {}, expected at most {limit}", path.display())]
    SocketPath {
        /// The longest socket path.
        path: PathBuf,
        /// Its length in bytes.
        found: usize,
        /// sun_path without its final zero byte.
        limit: usize,
    },
    /// A process of the VM ended or fell silent while it was being started.
    #[error("{process} did not start: {status}{}", log_suffix(log))]
    Start {
        /// Which one: qemu, vhost-device-vsock, supervisor.
        process: &'static str,
        /// Exit status or what was waited for.
        status: String,
        /// What it printed.
        log: String,
    },
    /// Nobody in the guest listens on the port, or the VM is gone.
    #[error("vsock port {port} in the guest refused the connection")]
    Refused {
        /// The guest's vsock port.
        port: u32,
    },
    /// The VM ended while something was asked of it.
    #[error("the vm has ended")]
    Ended,
    /// Nothing happened in time.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// QEMU's monitor answered with an error or with something else than its protocol.
    #[error("qemu monitor, {command}: found {found}")]
    Monitor {
        /// Command that was sent.
        command: &'static str,
        /// What came back.
        found: String,
    },
    /// The operating system refused.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

impl VmError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn log_suffix(log: &str) -> String {
    match log.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
