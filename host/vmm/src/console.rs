//! The guest's serial console: its last lines with their times, kept for error messages.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The guest writes what it likes: these bounds hold its console to half a MiB of the host's memory.
const LINES_MAX: usize = 512;
const LINE_MAX_BYTES: usize = 1024;

/// One line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleLine {
    /// When its first byte reached the host.
    pub at: Instant,
    /// Its text; bytes that are not printable are replaced, since the guest chose them.
    pub text: String,
}

/// The last lines of the console, shared with the task that reads it.
#[derive(Clone, Debug, Default)]
pub struct ConsoleTail(Arc<Mutex<VecDeque<ConsoleLine>>>);

impl ConsoleTail {
    /// The lines so far, oldest first.
    pub fn lines(&self) -> Vec<ConsoleLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The lines as one text.
    pub fn text(&self) -> String {
        self.lines().iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn read(self, mut source: impl AsyncRead + Unpin) {
        let mut buffer = [0u8; 4096];
        let mut splitter = Splitter::default();
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            let now = Instant::now();
            for byte in buffer.iter().take(count) {
                if let Some(line) = splitter.push(*byte, now) {
                    self.push(line);
                }
            }
        }
        if let Some(line) = splitter.finish() {
            self.push(line);
        }
    }

    fn push(&self, line: ConsoleLine) {
        tracing::debug!("guest console: {}", line.text);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[derive(Default)]
struct Splitter {
    started: Option<Instant>,
    bytes: Vec<u8>,
}

impl Splitter {
    fn push(&mut self, byte: u8, now: Instant) -> Option<ConsoleLine> {
        if byte == b'\n' {
            return self.finish();
        }
        self.started.get_or_insert(now);
        if self.bytes.len() < LINE_MAX_BYTES {
            self.bytes.push(byte);
        }
        None
    }

    fn finish(&mut self) -> Option<ConsoleLine> {
        let at = self.started.take()?;
        let bytes = std::mem::take(&mut self.bytes);
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text
            .trim_end_matches('\r')
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        Some(ConsoleLine { at, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(input: &[u8], expect: &[&str]) {
        let tail = ConsoleTail::default();
        tail.clone().read(input).await;
        let found: Vec<_> = tail.lines().into_iter().map(|line| line.text).collect();
        assert_eq!(found, expect);
    }

    #[tokio::test]
    async fn lines_are_split_cleaned_and_bounded() {
        check(b"one\r\ntwo\nthree", &["one", "two", "three"]).await;
        check(b"\x1b[2Jx\n", &["\u{fffd}[2Jx"]).await;
        check(&[b'a'; 5000], &["a".repeat(1024).as_str()]).await;
        let many: Vec<u8> = (0..600).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let last: Vec<String> = (88..600).map(|n| n.to_string()).collect();
        check(&many, &last.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}
