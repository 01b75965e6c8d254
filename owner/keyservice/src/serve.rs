//! Frames over any byte stream, bounded in number, size and time.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use ah_release_api::frame::{self, HEADER_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::KeyService;

/// Time for a connection as a whole.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Most messages of one connection: a guest sends two.
const MAX_MESSAGES: usize = 16;

impl KeyService {
    /// Answers the frames that come on `stream`, until the peer closes it, sends an impossible length, or has used up its messages
    /// or time.
    ///
    /// # Errors
    /// When the stream fails, or its time is up.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<()> {
        let frames = async {
            for _ in 0..MAX_MESSAGES {
                let Some(message) = read(&mut stream).await? else { return Ok(()) };
                let answer = self.handle(&message).await;
                let answer = frame::encode(&answer).map_err(io::Error::other)?;
                stream.write_all(&answer).await?;
                stream.flush().await?;
            }
            Ok(())
        };
        timeout(CONNECTION_TIMEOUT, frames)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// A handler for connections that arrive on threads which may block: runs [`Self::serve`] on `runtime`.
    pub fn blocking_handler(
        self: Arc<Self>,
        runtime: Handle,
    ) -> impl Fn(StdUnixStream) + Send + Sync + 'static {
        move |stream| {
            let served = runtime.block_on(async {
                stream.set_nonblocking(true)?;
                self.serve(UnixStream::from_std(stream)?).await
            });
            // The peer's trouble: it sees the end of its stream.
            drop(served);
        }
    }
}

/// One message; `None` at the end of the stream.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = frame::body_length(header)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
