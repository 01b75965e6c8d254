//! `kubectl port-forward`: what is connected to localhost in the pod's network namespace goes to the pod's address.
//!
//! containerd connects a forwarded port to localhost in the pod's namespace (containerd 1.6, `pkg/cri/server/sandbox_portforward_linux.go`),
//! where containers without a VM listen. Connections there are redirected to a listener of this shim, which connects to the same port of
//! the pod's address from the node, as the kubelet does for probes. The guest is not asked, and nothing is opened that the pod's network does
//! not open anyway: what listens on the guest's own localhost stays out of reach.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::network::PodNetwork;
use crate::pod::blocking;
use crate::{ShimError, trace};

/// How long the pod may take to answer a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the listener's queue.
const MOST: usize = 256;
/// Pause after a connection that could not be taken, as when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Forwards while it lives. The listener would keep the pod's namespace after CNI has removed it.
pub(crate) struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to forward to the pod's first address; `None` for a pod without one. The pod does not wait for it.
pub(crate) fn begin(network: &PodNetwork) -> Option<Forwarding> {
    let (namespace, to) = (network.namespace().to_owned(), network.address()?);
    let work = async move {
        let opened = blocking(move || open(&namespace)).await;
        match opened.and_then(|listener| {
            TcpListener::from_std(listener)
                .map_err(ShimError::network("listening for port-forward"))
        }) {
            Ok(listener) => serve(&listener, to).await,
            Err(error) => {
                let hint =
                    "kubectl port-forward needs iptables on the node; this pod goes on without";
                tracing::warn!(error = error.told(), hint, "ports of this pod are not forwarded");
            }
        }
    };
    Some(Forwarding(trace::spawn("port-forward", work)))
}

/// A listener in the namespace to which every connection to its localhost goes.
fn open(namespace: &Path) -> Result<std::net::TcpListener, ShimError> {
    let opened: io::Result<_> = ah_vmm::namespace::inside(namespace, || {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        redirect(listener.local_addr()?.port())?;
        Ok(listener)
    })?;
    opened.map_err(ShimError::network("redirecting the namespace's localhost"))
}

fn redirect(port: u16) -> io::Result<()> {
    let mut iptables = Command::new("iptables");
    iptables.args([
        "-w",
        "10",
        "-t",
        "nat",
        "-A",
        "OUTPUT",
        "-o",
        "lo",
        "-d",
        "127.0.0.0/8",
        "-p",
        "tcp",
    ]);
    iptables.args(["-j", "REDIRECT", "--to-ports", &port.to_string()]).stdin(Stdio::null());
    let output = iptables.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("iptables: {}: {}", output.status, said.trim())))
}

async fn serve(listener: &TcpListener, to: IpAddr) {
    let mut carried = JoinSet::new();
    loop {
        while carried.try_join_next().is_some() {}
        if carried.len() >= MOST {
            carried.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(carried.spawn(carry(stream, to))),
            Err(error) => {
                tracing::debug!(%error, "taking a forwarded connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(mut from: TcpStream, to: IpAddr) {
    let done = async {
        let asked: SocketAddrV4 = rustix::net::sockopt::ip_original_dst(&from)?;
        let address = SocketAddr::new(to, asked.port());
        let mut pod = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??;
        copy_bidirectional(&mut from, &mut pod).await
    };
    let done: io::Result<_> = done.await;
    if let Err(error) = done {
        tracing::debug!(%error, "a forwarded connection");
    }
}
