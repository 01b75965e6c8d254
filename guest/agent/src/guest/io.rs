//! Streams of a process: pipes or a terminal, read and written without a thread each.

use std::os::fd::OwnedFd;

use ah_container::ParentStdio;
use rustix::io::Errno;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, watch};

use crate::failure::Failure;

/// Most bytes given at once; far below a message's limit, and more than a pipe holds.
pub const MAX_READ_BYTES: usize = 1 << 20;

/// Which output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or everything a terminal shows.
    Stdout,
    /// Standard error; a terminal has none of its own.
    Stderr,
}

pub(super) type Stream = AsyncFd<OwnedFd>;

/// The agent's ends of a process's streams.
#[derive(Debug)]
pub struct Io {
    stdin: Mutex<Option<Stream>>,
    stdout: Mutex<Stream>,
    stderr: Option<Mutex<Stream>>,
    terminal: Option<OwnedFd>,
    /// Whether they are at their end, whoever holds the other side.
    over: watch::Sender<bool>,
}

impl Io {
    /// Three pipes.
    ///
    /// # Errors
    /// The reactor's error.
    pub fn pipes(ends: ParentStdio) -> std::io::Result<Self> {
        Ok(Self {
            stdin: Mutex::new(Some(watched(ends.stdin)?)),
            stdout: Mutex::new(watched(ends.stdout)?),
            stderr: Some(Mutex::new(watched(ends.stderr)?)),
            terminal: None,
            over: watch::Sender::new(false),
        })
    }

    /// The master side of a terminal.
    ///
    /// # Errors
    /// The system call's or the reactor's error.
    pub fn terminal(master: OwnedFd) -> std::io::Result<Self> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        Ok(Self {
            stdin: Mutex::new(Some(watched(master.try_clone()?)?)),
            stdout: Mutex::new(watched(master.try_clone()?)?),
            stderr: None,
            terminal: Some(master),
            over: watch::Sender::new(false),
        })
    }

    /// Up to `len` bytes; waits for the first one. After the process has ended it gives what is left and then
    /// [`Failure::EndOfStream`], even when a process of its own keeps the stream open.
    pub async fn read(
        &self,
        output: Output,
        len: usize,
        mut ended: watch::Receiver<Option<i32>>,
    ) -> Result<Vec<u8>, Failure> {
        let stream = match (output, &self.stderr) {
            (Output::Stdout, _) => &self.stdout,
            (Output::Stderr, Some(stderr)) => stderr,
            (Output::Stderr, None) => return Err(Failure::EndOfStream),
        };
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut over = self.over.subscribe();
        let stream = stream.lock().await;
        let mut buffer = vec![0; len.min(MAX_READ_BYTES)];
        loop {
            if *over.borrow_and_update() {
                return Err(Failure::EndOfStream);
            }
            if ended.borrow_and_update().is_some() {
                return taken(rustix::io::read(stream.get_ref(), &mut buffer), buffer)
                    .unwrap_or(Err(Failure::EndOfStream));
            }
            tokio::select! {
                ready = stream.readable() => {
                    let mut guard = ready.map_err(|e| Failure::effect("read from the process", &e))?;
                    let tried = guard.try_io(|fd| rustix::io::read(fd.get_ref(), &mut buffer).map_err(Into::into));
                    let found = match tried {
                        Err(_would_block) => continue,
                        Ok(Ok(n)) => Ok(n),
                        Ok(Err(e)) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
                    };
                    match taken(found, buffer) {
                        Some(done) => return done,
                        None => buffer = vec![0; len.min(MAX_READ_BYTES)],
                    }
                }
                _ = over.changed() => {}
                changed = ended.changed() => if changed.is_err() { return Err(Failure::EndOfStream) },
            }
        }
    }

    /// Writes as many of `bytes` as fit now, at least one; waits while none does.
    pub async fn write(&self, bytes: &[u8]) -> Result<usize, Failure> {
        let stream = self.stdin.lock().await;
        let Some(stream) = stream.as_ref() else {
            return Err(Failure::NotNow { text: "standard input is closed".into() });
        };
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut over = self.over.subscribe();
        loop {
            if *over.borrow_and_update() {
                return Err(Failure::NotNow { text: "standard input is closed".into() });
            }
            let ready = tokio::select! {
                ready = stream.writable() => ready,
                _ = over.changed() => continue,
            };
            let mut guard = ready.map_err(|e| Failure::effect("write to the process", &e))?;
            let tried =
                guard.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(Into::into));
            match tried {
                Ok(Ok(n)) => return Ok(n),
                Ok(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(Failure::effect("write to the process", &e)),
                Err(_would_block) => {}
            }
        }
    }

    /// Ends standard input: closes the pipe, or sends the end-of-file character (^D, termios(3) VEOF) on a terminal.
    pub async fn close_stdin(&self) -> Result<(), Failure> {
        if self.terminal.is_some() {
            return self.write(b"\x04").await.map(|_| ());
        }
        *self.stdin.lock().await = None;
        Ok(())
    }

    /// Ends all streams at once: what is read and written from now on, and what waits. Processes that the first one has left behind may
    /// hold their ends for as long as they like.
    pub async fn end(&self) {
        self.over.send_replace(true);
        *self.stdin.lock().await = None;
    }

    /// Sets the terminal's size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Failure> {
        let Some(terminal) = &self.terminal else {
            return Err(Failure::NotNow { text: "the process has no terminal".into() });
        };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)
            .map_err(|e| Failure::effect("set the terminal's size", &std::io::Error::from(e)))
    }
}

/// What a read gave; `None` when there was nothing yet.
fn taken(found: Result<usize, Errno>, mut buffer: Vec<u8>) -> Option<Result<Vec<u8>, Failure>> {
    match found {
        // A terminal whose other side is closed answers EIO (tty_ioctl, hung-up line).
        Ok(0) | Err(Errno::IO) => Some(Err(Failure::EndOfStream)),
        Ok(n) => {
            buffer.truncate(n);
            Some(Ok(buffer))
        }
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(e) => Some(Err(Failure::effect("read from the process", &std::io::Error::from(e)))),
    }
}

/// Puts a descriptor under the reactor's watch. The constructor is deprecated because a type may give back another descriptor than it
/// registered; an OwnedFd cannot, and its successor is an unsafe function.
#[allow(deprecated)]
pub(super) fn watched(fd: OwnedFd) -> std::io::Result<Stream> {
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pipes() -> (Io, [OwnedFd; 3]) {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let ((in_read, stdin), (stdout, out_write), (stderr, err_write)) = (pipe(), pipe(), pipe());
        let io = Io::pipes(ParentStdio { stdin, stdout, stderr }).unwrap();
        (io, [in_read, out_write, err_write])
    }

    /// The far ends stay open, as with a process that went into the background.
    #[tokio::test]
    async fn attack_streams_of_a_session_that_is_over_go_on() {
        let (io, [_in_read, out_write, _err_write]) = pipes();
        let (_process, ended) = watch::channel(None);
        let io = std::sync::Arc::new(io);
        assert_eq!(io.write(b"typed").await.unwrap(), 5);
        rustix::io::write(&out_write, b"said").unwrap();
        assert_eq!(io.read(Output::Stdout, 9, ended.clone()).await.unwrap(), b"said");
        // one reader and one writer wait
        while rustix::io::write(io.stdin.lock().await.as_ref().unwrap(), &[0; 4096]).is_ok() {}
        let reader = tokio::spawn({
            let (io, ended) = (io.clone(), ended.clone());
            async move { io.read(Output::Stdout, 9, ended).await }
        });
        let writer = tokio::spawn({
            let io = io.clone();
            async move { io.write(b"more").await }
        });
        tokio::task::yield_now().await;
        let all = async {
            io.end().await;
            (reader.await.unwrap(), writer.await.unwrap())
        };
        let (read, wrote) = tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
        assert!(matches!(read, Err(Failure::EndOfStream)), "{read:?}");
        assert!(matches!(wrote, Err(Failure::NotNow { .. })), "{wrote:?}");
        rustix::io::write(&out_write, b"later").unwrap();
        let late = io.read(Output::Stdout, 9, ended).await;
        assert!(matches!(late, Err(Failure::EndOfStream)), "{late:?}");
        assert!(io.write(b"late").await.is_err());
    }
}
