use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Span;

/// Where shims send events.
pub const EVENTS_SOCKET: &str = "/run/anchorhold/metrics-events.sock";
/// Longest event, bytes; longer ones are not sent, and refused.
pub(crate) const MAX_EVENT_BYTES: usize = 2048;

/// Something that a shim tells; one JSON document a datagram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A sandbox on its way up reached a stage.
    Stage {
        /// The stage's name.
        name: String,
        /// Time since the VM's start was asked for.
        seconds: f64,
    },
    /// The guest's policy denied a request.
    Denied {
        /// The agent's method, which is the policy's rule without `Request`.
        method: String,
    },
    /// A sandbox did not come up, or a request of it failed otherwise.
    Failed {
        /// Whose refusal or fault it was.
        blame: String,
    },
    /// A call has ended.
    Span(Span),
}

/// The way to the process that counts.
#[derive(Debug, Clone)]
pub struct Sender {
    path: PathBuf,
}

impl Sender {
    /// To the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Sends an event, if somebody listens and has room for it: a pod waits for nobody who counts.
    pub fn send(&self, event: &Event) {
        if let Err(error) = try_send(&self.path, event) {
            tracing::debug!(%error, "event not counted");
        }
    }
}

fn try_send(path: &Path, event: &Event) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(event)?;
    if bytes.len() > MAX_EVENT_BYTES {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(&bytes, path).map(drop)
}
