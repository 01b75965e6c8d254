//! Orders to the runtime process and its answers: one `SOCK_SEQPACKET` record each, JSON, with descriptors beside it.
//!
//! Both ends are the same binary, so the format has no version.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest record, in bytes.
const MAX_RECORD_BYTES: usize = 64 << 10;
/// Most descriptors beside a record: stdin, stdout, stderr.
const MAX_FDS: usize = 3;
/// Longest error text that is sent back, in characters.
const MAX_REASON_CHARS: usize = 4096;

/// What the agent asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Order {
    /// Make the sandbox's shared namespaces (ipc, uts) and set its hostname. Once, before the first container.
    Sandbox { hostname: String, shared_pid: bool },
    /// Set kernel settings in those namespaces.
    Settings { settings: BTreeMap<String, String> },
    /// Create a container from the bundle; beside it stdin, stdout, stderr, or none when the process has a terminal.
    Create { id: String, bundle: PathBuf, state: PathBuf, terminal: bool },
    /// Let a created container's first process go.
    Start { id: String, state: PathBuf },
    /// Start one more process in a running container; descriptors as for Create.
    Exec { id: String, process: PathBuf, state: PathBuf, terminal: bool },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Answer {
    Done,
    /// The sandbox stands; the first process of its shared pid namespace, if it has one.
    Sandbox {
        first_pid: Option<i32>,
    },
    /// The process; beside it the terminal's master side, if it has a terminal.
    Process {
        pid: i32,
    },
    Failed {
        reason: String,
    },
}

impl Answer {
    pub(crate) fn failed(reason: &dyn std::fmt::Display) -> Self {
        Self::Failed { reason: reason.to_string().chars().take(MAX_REASON_CHARS).collect() }
    }
}

/// A record could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket failed.
    #[error("runtime socket failed")]
    Socket(#[source] Errno),
    /// The other end is gone.
    #[error("runtime process has ended")]
    Closed,
    /// Not JSON of the expected form.
    #[error("runtime record is malformed")]
    Json(#[source] serde_json::Error),
    /// Over the size limit.
    #[error("runtime record: found {found} bytes, expected at most 65536")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
}

pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), MessageError> {
    let bytes = serde_json::to_vec(message).map_err(MessageError::Json)?;
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(MessageError::TooLong { found: bytes.len() });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(MessageError::Socket(Errno::NOBUFS));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .map(|_| ())
    .map_err(|e| match e {
        Errno::PIPE | Errno::CONNRESET => MessageError::Closed,
        other => MessageError::Socket(other),
    })
}

pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<(T, Vec<OwnedFd>), MessageError> {
    let mut bytes = vec![0u8; MAX_RECORD_BYTES];
    let (length, fds) = receive_record(socket, &mut bytes)?;
    if length == 0 {
        return Err(MessageError::Closed);
    }
    let record = bytes.get(..length).unwrap_or_default();
    let message = serde_json::from_slice(record).map_err(MessageError::Json)?;
    Ok((message, fds))
}

/// One record of bytes with the descriptors beside it. Also reads a terminal's master from a console socket.
pub(crate) fn receive_record(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), MessageError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })
    .map_err(MessageError::Socket)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((got.bytes, fds))
}
