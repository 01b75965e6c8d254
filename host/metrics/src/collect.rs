use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixDatagram;

use crate::address::remove_socket;
use crate::event::MAX_EVENT_BYTES;
use crate::{Event, Metrics, Span};

/// Counts what comes to a socket at `path`, which only this user reaches, until it is dropped; spans are handed on.
///
/// # Errors
/// The socket cannot be made or read.
pub async fn collect(path: &Path, metrics: Arc<Metrics>, spans: impl Fn(Span)) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    remove_socket(path)?;
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // One byte more than an event has, so that a longer one is seen to be longer.
    let mut buffer = [0; MAX_EVENT_BYTES + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).filter(|bytes| bytes.len() <= MAX_EVENT_BYTES);
        match bytes.and_then(|bytes| serde_json::from_slice::<Event>(bytes).ok()) {
            Some(Event::Span(span)) => spans(span),
            Some(event) => metrics.count(&event),
            None => metrics.refused(),
        }
    }
}
