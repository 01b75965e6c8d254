//! A process's streams between the agent and containerd's fifos.
//!
//! Each fifo is opened for both directions: neither opening nor writing then depends on whether containerd is there, so a
//! container outlives containerd's restart, and its output waits in the fifo.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ah_agent_client::{AgentClient, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::ShimError;

/// Bytes asked for at once.
const READ_BYTES: u32 = 64 * 1024;
/// Output that is still on its way when a process has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Where containerd wants a process's streams; an empty path is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

impl Stdio {
    /// Fifos, or nothing: containerd's logging programs and files are of no container runtime interface.
    pub(crate) fn check(&self) -> Result<(), ShimError> {
        for path in [&self.stdin, &self.stdout, &self.stderr] {
            if !path.is_empty() && !path.starts_with('/') {
                let (field, expected) = ("stdin, stdout, stderr", "the path of a fifo, or none");
                return Err(ShimError::Request { field, found: path.clone(), expected });
            }
        }
        Ok(())
    }
}

/// Which process the streams are of.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    pub(crate) agent: AgentClient,
    pub(crate) container_id: String,
    /// Empty for a container's first process.
    pub(crate) exec_id: String,
}

/// The streams of a running process.
pub(crate) struct Streams {
    outputs: Vec<JoinHandle<()>>,
    input: Option<JoinHandle<()>>,
}

impl Streams {
    /// Opens the fifos and starts copying.
    pub(crate) fn start(
        whose: &Whose,
        stdio: &Stdio,
        close: Arc<Notify>,
    ) -> Result<Self, ShimError> {
        let output = |path: &str, stream| -> Result<_, ShimError> {
            if path.is_empty() {
                return Ok(None);
            }
            let fifo = sender(Path::new(path)).map_err(ShimError::file("opening", path))?;
            Ok(Some(tokio::spawn(copy_out(whose.clone(), stream, fifo))))
        };
        let stdout = output(&stdio.stdout, Stream::Stdout)?;
        // a terminal has one stream for both
        let stderr = if stdio.terminal { None } else { output(&stdio.stderr, Stream::Stderr)? };
        let input = match stdio.stdin.as_str() {
            "" => None,
            path => {
                let fifo = receiver(Path::new(path)).map_err(ShimError::file("opening", path))?;
                Some(tokio::spawn(copy_in(whose.clone(), fifo, close)))
            }
        };
        Ok(Self { outputs: stdout.into_iter().chain(stderr).collect(), input })
    }

    /// Waits for what the ended process has printed. A process that it left behind may hold a stream open: not for long.
    pub(crate) async fn finish(mut self) {
        for mut output in std::mem::take(&mut self.outputs) {
            if timeout(DRAIN_LIMIT, &mut output).await.is_err() {
                output.abort();
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.outputs.iter().chain(&self.input).for_each(JoinHandle::abort);
    }
}

fn sender(path: &Path) -> io::Result<Sender> {
    OpenOptions::new().read_write(true).open_sender(path)
}

fn receiver(path: &Path) -> io::Result<Receiver> {
    OpenOptions::new().read_write(true).open_receiver(path)
}

async fn copy_out(whose: Whose, stream: Stream, mut fifo: Sender) {
    let Whose { agent, container_id, exec_id } = &whose;
    loop {
        match agent.read_stream(stream, container_id, exec_id, READ_BYTES).await {
            Ok(data) if data.is_empty() => return,
            Ok(data) => {
                if let Err(error) = fifo.write_all(&data).await {
                    return tracing::warn!(%error, container_id, "writing output");
                }
            }
            // the end of the stream is an error in this protocol; a denial is the owner's choice
            Err(error) => return tracing::debug!(%error, container_id, "reading output"),
        }
    }
}

/// Copies until containerd says that it is done: the fifo itself never ends, since it is open in both directions.
async fn copy_in(whose: Whose, mut fifo: Receiver, close: Arc<Notify>) {
    let Whose { agent, container_id, exec_id } = &whose;
    let mut buffer = vec![0; READ_BYTES as usize];
    let mut closing = false;
    loop {
        let read = match closing {
            true => match fifo.try_read(&mut buffer) {
                Ok(read) => read,
                Err(_) => break,
            },
            false => tokio::select! {
                read = fifo.read(&mut buffer) => read.unwrap_or(0),
                () = close.notified() => {
                    closing = true;
                    continue;
                }
            },
        };
        if read == 0 || write_all(&whose, buffer.get(..read).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    if let Err(error) = agent.close_stdin(container_id, exec_id).await {
        tracing::debug!(%error, container_id, "closing stdin");
    }
}

async fn write_all(whose: &Whose, mut data: &[u8]) -> Result<(), ah_agent_client::CallError> {
    while !data.is_empty() {
        let written = whose.agent.write_stdin(&whose.container_id, &whose.exec_id, data).await?;
        let written = usize::try_from(written).unwrap_or(data.len()).max(1);
        data = data.get(written..).unwrap_or_default();
    }
    Ok(())
}
