//! `delete`: containerd calls it when a shim is gone or does not answer. Ends it, and the VM by that; the rest is small.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use protobuf::Message as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::convert::{self, Kind};
use crate::events::timestamp;
use crate::launch::{PID_FILE, socket_path};
use crate::process::GONE;
use crate::wire::task::DeleteResponse;
use crate::{Call, ShimError, network};

/// Time for a killed shim to be gone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Takes away what the shim of a bundle left. Gives the answer that containerd reads.
///
/// # Errors
/// [`ShimError`] when the answer cannot be written; what cannot be taken away is told on standard error.
pub fn delete(call: &Call) -> Result<Vec<u8>, ShimError> {
    let config = call.bundle.join("config.json");
    let spec = fs::read(&config).ok().and_then(|bytes| convert::parse(&bytes).ok());
    // a container's shim is its pod's, which is not to be ended with it
    if !spec.as_ref().is_some_and(|(spec, _)| convert::kind(spec) == Kind::Container) {
        end_shim(call);
        let _ = fs::remove_file(socket_path(&call.address, &call.namespace, &call.id));
        let sandbox = spec.and_then(|(spec, _)| convert::sandbox(&call.id, &spec).ok());
        let namespace = sandbox.and_then(|sandbox| sandbox.network_namespace);
        if let Some(namespace) = namespace.filter(|path| path.exists()) {
            // the namespace is CNI's to remove; this leaves it as it was
            let _ = network::leave(&namespace);
        }
    }
    let response = DeleteResponse {
        exit_status: GONE,
        exited_at: timestamp(SystemTime::now()),
        ..Default::default()
    };
    response.write_to_bytes().map_err(|error| ShimError::Request {
        field: "answer",
        found: error.to_string(),
        expected: "a message that can be written",
    })
}

/// The VM's supervisor ends with the shim, and takes QEMU, the vsock device, their sockets and the tap with it.
fn end_shim(call: &Call) {
    let Some(pid) = fs::read_to_string(call.bundle.join(PID_FILE)).ok() else { return };
    let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) else { return };
    // held before it is looked at: from here on the number cannot become another process's
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if !is_shim_of(pid, &call.id) || pidfd_send_signal(&pidfd, Signal::KILL).is_err() {
        return;
    }
    let limit = Timespec { tv_sec: END_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
}

fn is_shim_of(pid: Pid, id: &str) -> bool {
    let path = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("cmdline");
    let Ok(line) = fs::read(path) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| pair == [&b"-id"[..], id.as_bytes()])
}
