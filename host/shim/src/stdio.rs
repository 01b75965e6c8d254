//! A process's streams between the agent and containerd's fifos.
//!
//! Each fifo is opened for both directions: neither opening nor writing then depends on whether containerd is there, so a
//! container outlives containerd's restart, and its output waits in the fifo.
//!
//! So the end of a container's input is what containerd says by CloseIO. One case has no such word: `ctr run < /dev/null` has
//! read its empty input, and opened and closed the fifo again, before there is a task that it could call (containerd 1.6 to 2.1; with runc
//! that container waits for ever). An input that nobody holds open at the start, and for a while after it, is therefore an empty one.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ah_agent_client::{AgentClient, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{ShimError, trace};

/// Bytes asked for at once.
const READ_BYTES: u32 = 64 * 1024;
/// Output that is still on its way when a process has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Time in which whoever has something to write has the fifo open: containerd's clients open it before they ask for the task.
const WRITER_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks for a writer.
const WRITER_INTERVAL: Duration = Duration::from_millis(50);

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
            Ok(Some(trace::spawn("output", copy_out(whose.clone(), stream, fifo))))
        };
        let stdout = output(&stdio.stdout, Stream::Stdout)?;
        // a terminal has one stream for both
        let stderr = if stdio.terminal { None } else { output(&stdio.stderr, Stream::Stderr)? };
        let input = match stdio.stdin.as_str() {
            "" => None,
            path => {
                let input = Input::open(path).map_err(ShimError::file("opening", path))?;
                // a terminal may be attached at any time
                let limit = (!stdio.terminal).then_some(WRITER_LIMIT);
                Some(trace::spawn("input", copy_in(whose.clone(), input, limit, close)))
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

/// A fifo for input as long as it is not known whether anybody writes.
struct Input {
    path: PathBuf,
    /// For reading only: one that is open in both directions always has a writer.
    reader: File,
}

impl Input {
    fn open(path: &str) -> io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let reader = File::options().read(true).custom_flags(nonblocking).open(path)?;
        Ok(Self { path: path.into(), reader })
    }

    /// Waits for a writer, and gives the fifo with what was already read; nothing, if none comes within the limit.
    async fn written(
        mut self,
        limit: Option<Duration>,
        close: &Notify,
    ) -> io::Result<Option<(Vec<u8>, Receiver)>> {
        let begun = tokio::time::Instant::now();
        let mut buffer = vec![0; READ_BYTES as usize];
        let first = loop {
            let Some(limit) = limit else { break Vec::new() };
            match self.reader.read(&mut buffer) {
                // what fifo(7) says of one without a writer
                Ok(0) if begun.elapsed() > limit => return Ok(None),
                Ok(0) => tokio::select! {
                    () = tokio::time::sleep(WRITER_INTERVAL) => {}
                    () = close.notified() => {
                        close.notify_one();
                        break Vec::new();
                    }
                },
                Ok(read) => break buffer.get(..read).unwrap_or_default().to_vec(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Vec::new(),
                Err(error) => return Err(error),
            }
        };
        Ok(Some((first, receiver(&self.path)?)))
    }
}

/// Copies what there is to the process, then closes its input.
async fn copy_in(whose: Whose, input: Input, limit: Option<Duration>, close: Arc<Notify>) {
    match input.written(limit, &close).await {
        Ok(Some((first, fifo))) => {
            if write_all(&whose, &first).await.is_ok() {
                copy_fifo(&whose, fifo, &close).await;
            }
        }
        Ok(None) => tracing::debug!(whose.container_id, "nobody writes to stdin: it is empty"),
        Err(error) => tracing::warn!(%error, whose.container_id, "reading input"),
    }
    let Whose { agent, container_id, exec_id } = &whose;
    if let Err(error) = agent.close_stdin(container_id, exec_id).await {
        tracing::debug!(%error, container_id, "closing stdin");
    }
}

/// Copies until containerd says that it is done: the fifo itself never ends, since it is open in both directions.
async fn copy_fifo(whose: &Whose, mut fifo: Receiver, close: &Notify) {
    let mut buffer = vec![0; READ_BYTES as usize];
    let mut closing = false;
    loop {
        let read = match closing {
            true => match fifo.try_read(&mut buffer) {
                Ok(read) => read,
                Err(_) => return,
            },
            false => tokio::select! {
                read = fifo.read(&mut buffer) => read.unwrap_or(0),
                () = close.notified() => {
                    closing = true;
                    continue;
                }
            },
        };
        if read == 0 || write_all(whose, buffer.get(..read).unwrap_or_default()).await.is_err() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_millis(100));

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdin");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        (folder, path)
    }

    async fn written(path: &Path, limit: Option<Duration>, close: &Notify) -> Option<Vec<u8>> {
        let input = Input::open(path.to_str().unwrap()).unwrap();
        input.written(limit, close).await.unwrap().map(|(first, _)| first)
    }

    #[tokio::test]
    async fn an_input_that_nobody_holds_open_is_empty() {
        let (_folder, path) = fifo();
        let never = Notify::new();
        assert_eq!(written(&path, SHORT, &never).await, None);
        // a terminal is waited for
        assert_eq!(written(&path, None, &never).await, Some(vec![]));
        let closed = Notify::new();
        closed.notify_one();
        assert_eq!(written(&path, Some(WRITER_LIMIT), &closed).await, Some(vec![]));
    }

    #[tokio::test]
    async fn a_writer_is_seen_with_what_it_wrote_and_without() {
        let (_folder, path) = fifo();
        let never = Notify::new();
        let reader = Input::open(path.to_str().unwrap()).unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        assert_eq!(written(&path, SHORT, &never).await, Some(vec![]));
        writer.write_all(b"x").unwrap();
        assert_eq!(written(&path, SHORT, &never).await, Some(b"x".to_vec()));
        drop(reader);
    }
}
