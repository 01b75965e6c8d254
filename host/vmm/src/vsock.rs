//! Both directions of vsock between host and guest, whichever device carries it.
//!
//! A connection is a [`UnixStream`] in both cases: the user-mode device is one, and an AF_VSOCK stream socket
//! behaves like one for reading, writing and polling.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use vsock::{VMADDR_CID_ANY, VsockAddr, VsockStream};

use crate::{Tools, VmError, VmSpec, VsockBackend, qemu::VsockDevice};

const KERNEL_DEVICE: &str = "/dev/vhost-vsock";
/// Identifier of the guest behind the user-mode device: it is known to that process alone.
pub(crate) const USER_CID: u32 = 3;
/// "OK " and a port number.
const ANSWER_MAX_BYTES: usize = 32;

/// Decides how vsock is carried. A confidential guest's device must know VIRTIO_F_ACCESS_PLATFORM, which the
/// kernel's does and the user-mode one does not.
pub(crate) fn device(
    spec: &VmSpec,
    tools: &Tools,
    socket: PathBuf,
) -> Result<VsockDevice, VmError> {
    let user = tools.vsock_bridge.is_some();
    let prefer_kernel = spec.tee.is_confidential() && kernel_device_opens();
    match spec.vsock {
        VsockBackend::None => Ok(VsockDevice::None),
        VsockBackend::Auto if prefer_kernel => Ok(VsockDevice::Kernel(random_cid()?)),
        VsockBackend::User | VsockBackend::Auto if user => Ok(VsockDevice::User(socket)),
        VsockBackend::Kernel | VsockBackend::Auto if kernel_device_opens() => {
            Ok(VsockDevice::Kernel(random_cid()?))
        }
        VsockBackend::Kernel => Err(VmError::Unsupported {
            what: "vsock",
            found: format!("no usable {KERNEL_DEVICE}"),
            expected: "the kernel's vhost-vsock device",
        }),
        VsockBackend::User | VsockBackend::Auto => Err(VmError::ToolMissing {
            program: "vhost-device-vsock",
            looked_in: "ANCHORHOLD_VHOST_DEVICE_VSOCK, beside the program, PATH, and there is no /dev/vhost-vsock".into(),
        }),
    }
}

fn kernel_device_opens() -> bool {
    File::options().read(true).write(true).open(KERNEL_DEVICE).is_ok()
}

/// Identifiers 0 to 2 are reserved, the greatest means "any" (vsock(7)).
fn random_cid() -> Result<u32, VmError> {
    let mut bytes = [0u8; 4];
    let mut source = File::open("/dev/urandom").map_err(VmError::io("opening /dev/urandom"))?;
    io::Read::read_exact(&mut source, &mut bytes).map_err(VmError::io("reading /dev/urandom"))?;
    Ok((u32::from_ne_bytes(bytes) >> 1).saturating_add(3))
}

/// The host's end.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    None,
    /// The user-mode device's socket; the guest's connections arrive at `<path>_<port>`.
    User(PathBuf),
    Kernel(u32),
}

impl Endpoint {
    /// One attempt to reach a listener in the guest.
    pub(crate) async fn connect(&self, port: u32) -> Result<UnixStream, VmError> {
        let refused = VmError::Refused { port };
        let stream = match self {
            Self::None => None,
            Self::User(path) => connect_user(path, port).await.ok(),
            Self::Kernel(cid) => connect_kernel(*cid, port).await.ok(),
        };
        stream.ok_or(refused)
    }

    /// Waits for the guest's connections to a port of the host.
    pub(crate) fn listen(&self, port: u32) -> Result<VsockListener, VmError> {
        let what = || VmError::io(format!("listening on vsock port {port}"));
        match self {
            Self::None => Err(VmError::Refused { port }),
            Self::User(path) => {
                let path = port_path(path, port);
                let listener = UnixListener::bind(path).map_err(what())?;
                Ok(VsockListener(Inner::User(listener)))
            }
            Self::Kernel(cid) => {
                let address = VsockAddr::new(VMADDR_CID_ANY, port);
                let listener = vsock::VsockListener::bind(&address).map_err(what())?;
                Ok(VsockListener(Inner::Kernel(listener, *cid)))
            }
        }
    }
}

fn port_path(path: &Path, port: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("_{port}"));
    name.into()
}

/// The device reads `CONNECT <port>` up to the end of the line in one go, so it is written in one piece, and
/// nothing follows before the answer. Before the guest's driver is up the device closes or holds the
/// connection; a connection given up half-way would keep the device busy, so this waits for its answer.
async fn connect_user(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line belongs to the caller.
    while answer.last() != Some(&b'\n') {
        if answer.len() == ANSWER_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.push(stream.read_u8().await?);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

async fn connect_kernel(cid: u32, port: u32) -> io::Result<UnixStream> {
    let connect = move || VsockStream::connect_with_cid_port(cid, port);
    let stream = tokio::task::spawn_blocking(connect).await.map_err(io::Error::other)??;
    as_unix(&stream)
}

fn as_unix(stream: &VsockStream) -> io::Result<UnixStream> {
    let fd: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    let stream = StdUnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Accepts the guest's connections to one port of the host.
#[derive(Debug)]
pub struct VsockListener(Inner);

#[derive(Debug)]
enum Inner {
    User(UnixListener),
    Kernel(vsock::VsockListener, u32),
}

impl VsockListener {
    /// The next connection of this VM's guest.
    ///
    /// # Errors
    /// [`VmError::Io`] when the socket is gone, which it is after the VM.
    pub async fn accept(&self) -> Result<UnixStream, VmError> {
        let what = || VmError::io("accepting a connection of the guest");
        match &self.0 {
            Inner::User(listener) => {
                listener.accept().await.map(|(stream, _)| stream).map_err(what())
            }
            Inner::Kernel(listener, cid) => {
                let fd = listener.as_fd().try_clone_to_owned().map_err(what())?;
                accept_kernel(fd, *cid).await.map_err(what())
            }
        }
    }
}

/// Every guest of the machine reaches the port: connections of others are closed.
async fn accept_kernel(fd: OwnedFd, cid: u32) -> io::Result<UnixStream> {
    let listener = vsock::VsockListener::from(fd);
    let accept = move || -> io::Result<VsockStream> {
        loop {
            let (stream, peer) = listener.accept()?;
            if peer.cid() == cid {
                return Ok(stream);
            }
        }
    };
    let stream = tokio::task::spawn_blocking(accept).await.map_err(io::Error::other)??;
    as_unix(&stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(backend: VsockBackend, bridge: bool, expect: Option<VsockDevice>) {
        let tools = Tools {
            qemu: "/q".into(),
            vsock_bridge: bridge.then(|| "/b".into()),
            supervisor: "/s".into(),
        };
        let spec = VmSpec { vsock: backend, ..crate::spec::tests::spec() };
        assert_eq!(device(&spec, &tools, "/r/vu".into()).ok(), expect);
    }

    #[test]
    fn the_private_device_comes_first() {
        check(VsockBackend::None, true, Some(VsockDevice::None));
        check(VsockBackend::User, true, Some(VsockDevice::User("/r/vu".into())));
        check(VsockBackend::Auto, true, Some(VsockDevice::User("/r/vu".into())));
        check(VsockBackend::User, false, None);
    }

    async fn handshake(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        let device = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0u8; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        });
        let connected = connect_user(&path, 1024).await;
        device.await.unwrap();
        let mut rest = Vec::new();
        connected?.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    #[tokio::test]
    async fn handshake_leaves_the_guests_first_bytes() {
        assert_eq!(handshake(b"OK 1073741824\nhello").await.unwrap(), b"hello");
        assert!(handshake(b"").await.is_err());
        assert!(handshake(b"NO\n").await.is_err());
        assert!(handshake(b"OK 00000000000000000000000000000000000\n").await.is_err());
    }
}
