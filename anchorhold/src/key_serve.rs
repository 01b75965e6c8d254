//! `anchorhold key serve`: the local key service for the guests of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_keyservice::{LogEntry, Verdict};
use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::cli::{KeyServe, Listen};
use crate::dirs::Dirs;
use crate::keys::{self, Accept};
use crate::ui::{self, failure};

/// Connections that are served at once; more wait. Each ends by itself (`ah_keyservice::KeyService::serve`).
const CONNECTIONS: usize = 256;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(dirs: &Dirs, options: &KeyServe) -> Result<()> {
    let accept = Accept::from_option(options.danger_accept_software_tee);
    if accept == Accept::DangerSoftwareTee {
        eprintln!("{}: keys may be released to VMs that their host can read", ui::SOFTWARE_TEE);
    }
    let service = Arc::new(keys::open(dirs, accept, Some(Arc::new(tell))).await?);
    let mut terminate = signal(SignalKind::terminate())?;
    let (listener, _socket) = listen(&options.listen).await?;
    eprintln!("key service: listening on {}", listener.address(&options.listen));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.context("counting connections")?;
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // as when there are no more file descriptors: others may still be served
                eprintln!("key service: connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            // the peer's trouble: it sees the end of its stream
            let _ = service.serve(stream).await;
            drop(place);
        });
    }
    service.close().await;
    Ok(())
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }

    fn address(&self, asked: &Listen) -> String {
        match (self, asked) {
            (Self::Unix(_), Listen::Unix(path)) => format!("unix:{}", path.display()),
            (Self::Tcp(listener), _) => {
                listener.local_addr().map_or_else(|_| String::new(), |found| format!("tcp:{found}"))
            }
            (Self::Unix(_), Listen::Tcp(_)) => String::new(),
        }
    }
}

/// Takes its socket away when the service ends.
struct Socket(Option<PathBuf>);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn listen(place: &Listen) -> Result<(Listener, Socket)> {
    match place {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("listening on tcp:{address}"))?;
            Ok((Listener::Tcp(listener), Socket(None)))
        }
        Listen::Unix(path) => {
            refuse_served(path).await?;
            let listener = UnixListener::bind(path);
            let listener =
                listener.with_context(|| format!("listening on unix:{}", path.display()))?;
            Ok((Listener::Unix(listener), Socket(Some(path.clone()))))
        }
    }
}

/// A socket that nobody listens on is what a killed service left; another file is somebody's.
async fn refuse_served(path: &Path) -> Result<()> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(failure(
            format!("{}: found a service that answers there", path.display()),
            "end it, or choose another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
        }
        Err(_) => Ok(()),
    }
}

fn tell(entry: &LogEntry) {
    let key = entry.key_id.as_ref().map_or("-", |id| id.as_str());
    let verdict = match entry.decision {
        Verdict::Released => "released",
        Verdict::Refused => "refused",
        Verdict::Done => return,
    };
    let unmet = entry.conditions.iter().filter(|_| entry.decision == Verdict::Refused);
    let unmet = unmet.map(|condition| format!("{} differs", condition.claim));
    let reasons: Vec<String> = entry.reasons.iter().cloned().chain(unmet).collect();
    eprintln!("key service: {verdict} {key}: {}", reasons.join("; "));
}
