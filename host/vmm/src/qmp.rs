//! A client of QEMU's machine protocol: the greeting, one command at a time, and the reason of the ending.
//!
//! Protocol: docs/interop/qmp-spec of QEMU 7.2; one JSON object a line in both directions.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::timeout,
};

use crate::VmError;

/// Longest line that is taken from QEMU.
const LINE_MAX_BYTES: u64 = 1 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why QEMU stopped the guest, in its own words (`ShutdownCause`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) reason: String,
}

/// The connection after the greeting.
#[derive(Debug)]
pub(crate) struct Monitor {
    writer: OwnedWriteHalf,
    answers: mpsc::Receiver<Value>,
    shutdown: watch::Receiver<Option<Shutdown>>,
    last_id: u64,
}

impl Monitor {
    /// Greets QEMU.
    pub(crate) async fn open(stream: UnixStream) -> Result<Self, VmError> {
        let (reader, writer) = stream.into_split();
        let (answer_sender, answers) = mpsc::channel(4);
        let (shutdown_sender, shutdown) = watch::channel(None);
        tokio::spawn(read(BufReader::new(reader), answer_sender, shutdown_sender));
        let mut monitor = Self { writer, answers, shutdown, last_id: 0 };
        monitor.command("qmp_capabilities").await?;
        Ok(monitor)
    }

    /// Whether a vhost device's driver has started. A QEMU without the command (it came with 7.2, and its name
    /// says that it may go) cannot tell: then it counts as started.
    pub(crate) async fn vsock_driver_is_up(&mut self, path: &str) -> bool {
        match self.run("x-query-virtio-status", json!({"path": path})).await {
            Ok(status) => status["vhost-started"].as_bool().unwrap_or(true),
            Err(_) => true,
        }
    }

    /// Runs a command without arguments.
    pub(crate) async fn command(&mut self, command: &'static str) -> Result<Value, VmError> {
        self.run(command, json!({})).await
    }

    /// Runs a command.
    pub(crate) async fn run(
        &mut self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, VmError> {
        // An answer to a command whose asker gave up may still come: the number tells them apart.
        self.last_id = self.last_id.wrapping_add(1);
        let line = json!({"execute": command, "arguments": arguments, "id": self.last_id});
        let line = format!("{line}\n");
        self.writer.write_all(line.as_bytes()).await.map_err(|_| VmError::Ended)?;
        let answer = timeout(ANSWER_LIMIT, self.answer())
            .await
            .map_err(|_| VmError::Timeout {
                what: "an answer of qemu's monitor",
                limit: ANSWER_LIMIT,
            })?
            .ok_or(VmError::Ended)?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(VmError::Monitor { command, found: answer.to_string() }),
        }
    }

    async fn answer(&mut self) -> Option<Value> {
        loop {
            let answer = self.answers.recv().await?;
            if answer["id"] == self.last_id {
                return Some(answer);
            }
        }
    }

    /// Follows the reason of the guest's end; closed when QEMU is gone.
    pub(crate) fn shutdown(&self) -> watch::Receiver<Option<Shutdown>> {
        self.shutdown.clone()
    }
}

async fn read(
    mut reader: BufReader<OwnedReadHalf>,
    answers: mpsc::Sender<Value>,
    shutdown: watch::Sender<Option<Shutdown>>,
) {
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(LINE_MAX_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else { return };
        if message.get("return").is_some() || message.get("error").is_some() {
            if answers.send(message).await.is_err() {
                // Nobody asks any more, but the events still count.
                continue;
            }
        } else if message["event"] == "SHUTDOWN" {
            let reason = message["data"]["reason"].as_str().unwrap_or("unknown").to_owned();
            shutdown.send_replace(Some(Shutdown { reason }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn qemu(answers: &'static str) -> Result<Monitor, VmError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answers.as_bytes()).await.unwrap();
        tokio::spawn(async move {
            let mut sink = Vec::new();
            theirs.read_to_end(&mut sink).await
        });
        Monitor::open(ours).await
    }

    #[tokio::test]
    async fn greeting_answer_and_event() {
        let monitor = qemu(concat!(
            "{\"QMP\":{\"version\":{}}}\n{\"return\":{},\"id\":1}\n",
            "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}\n",
        ))
        .await
        .unwrap();
        let mut shutdown = monitor.shutdown();
        let found = shutdown.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(found, Some(Shutdown { reason: "guest-shutdown".into() }));
    }

    #[tokio::test]
    async fn an_error_is_told_with_its_command() {
        let error = qemu("{\"error\":{\"class\":\"GenericError\"},\"id\":1}\n").await.unwrap_err();
        assert!(matches!(error, VmError::Monitor { command: "qmp_capabilities", .. }));
    }
}
