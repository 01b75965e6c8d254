//! `start`: the address of a container's shim; for a sandbox the shim is made.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ah_digest::Sha256;

use crate::convert::{self, Kind};
use crate::{Call, ShimError};

/// Where containerd's own shims have their sockets, too (containerd, `pkg/shim`, `socketRoot`).
const SOCKETS: &str = "/run/containerd/s";
/// What containerd reads when it is started again.
const ADDRESS_FILE: &str = "address";
/// What [`crate::delete`] reads.
pub(crate) const PID_FILE: &str = "shim.pid";

/// The socket of the shim for a sandbox.
pub(crate) fn socket_path(address: &str, namespace: &str, id: &str) -> PathBuf {
    Path::new(SOCKETS).join(Sha256::of(format!("{address}\0{namespace}\0{id}")).to_string())
}

/// Gives the address of the shim for the bundle in the working directory.
///
/// # Errors
/// [`ShimError`] when there is no shim of the pod, or none can be made.
pub fn start(call: &Call) -> Result<String, ShimError> {
    let bundle = std::env::current_dir().map_err(ShimError::file("finding", "."))?;
    let config = bundle.join("config.json");
    let bytes = fs::read(&config).map_err(ShimError::file("reading", &config))?;
    let (spec, _) = convert::parse(&bytes)?;
    let sandbox_id = convert::sandbox_id(&spec).unwrap_or(&call.id);
    let socket = socket_path(&call.address, &call.namespace, sandbox_id);
    let is_up = UnixStream::connect(&socket).is_ok();
    match convert::kind(&spec) {
        Kind::Container if !is_up => {
            return Err(ShimError::NotFound { what: format!("the shim of sandbox {sandbox_id}") });
        }
        Kind::Sandbox | Kind::Alone if !is_up => spawn(call, &bundle, &socket)?,
        _ => {}
    }
    let address = format!("unix://{}", socket.display());
    let file = bundle.join(ADDRESS_FILE);
    fs::write(&file, &address).map_err(ShimError::file("writing", &file))?;
    Ok(address)
}

/// The socket listens before the shim runs, so that nobody has to wait for it.
fn spawn(call: &Call, bundle: &Path, socket: &Path) -> Result<(), ShimError> {
    let file = |what| ShimError::file(what, socket);
    fs::create_dir_all(SOCKETS).map_err(ShimError::file("making", SOCKETS))?;
    // of a shim that is gone
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(file("listening on"))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("containerd-shim-anchorhold-v2")
        .args(["-namespace", &call.namespace, "-id", &call.id, "-address", &call.address])
        .arg("-bundle")
        .arg(bundle)
        .current_dir("/")
        .process_group(0)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if call.debug {
        command.arg("-debug");
    }
    let child = command.spawn().map_err(ShimError::file("starting", "/proc/self/exe"))?;
    let pid = bundle.join(PID_FILE);
    fs::write(&pid, child.id().to_string()).map_err(ShimError::file("writing", &pid))
}
