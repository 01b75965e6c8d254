//! Every process that a container has, and the one task that waits for their ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ah_container::{ExitStatus, ProcessTable, SignalError};
use tokio::sync::watch;

use super::io::Io;
use crate::failure::Failure;

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    /// Its pid in the guest.
    pub pid: i32,
    /// Its streams.
    pub io: Io,
    /// Its exit status once it has ended.
    pub ended: watch::Receiver<Option<i32>>,
}

#[derive(Debug, Default)]
struct Inner {
    table: ProcessTable,
    ends: BTreeMap<i32, watch::Sender<Option<i32>>>,
}

/// The agent's children.
#[derive(Debug, Default, Clone)]
pub struct Processes {
    inner: Arc<Mutex<Inner>>,
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches `pid`, a child made just now.
    pub fn claim(&self, pid: i32) -> watch::Receiver<Option<i32>> {
        let mut inner = self.lock();
        let ended = inner.table.claim(pid).map(|ExitStatus(code)| code);
        let (sender, receiver) = watch::channel(ended);
        if ended.is_none() {
            inner.ends.insert(pid, sender);
        }
        receiver
    }

    /// Sends signal `number` to `pid`. A process that has ended is no error, as for the Kata agent.
    pub fn signal(&self, pid: i32, number: u32) -> Result<(), Failure> {
        match self.lock().table.signal(pid, number) {
            Ok(()) | Err(SignalError::Ended) => Ok(()),
            Err(e @ SignalError::Number { .. }) => Err(Failure::refused(e.to_string())),
            Err(e) => Err(Failure::effect("signal", &e)),
        }
    }

    /// Collects every child that has ended. Called for each SIGCHLD and once after each claim's maker.
    pub fn reap(&self) {
        let mut inner = self.lock();
        for reaped in inner.table.reap() {
            if let Some(sender) = inner.ends.remove(&reaped.pid) {
                let ExitStatus(code) = reaped.status;
                sender.send_replace(Some(code));
            }
        }
    }

    /// Reaps for as long as the runtime runs.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    pub fn reap_forever(&self) -> std::io::Result<tokio::task::JoinHandle<()>> {
        let mut children = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        let processes = self.clone();
        Ok(tokio::spawn(async move {
            loop {
                processes.reap();
                if children.recv().await.is_none() {
                    return;
                }
            }
        }))
    }
}

/// Waits until `ended` has a status.
pub(super) async fn end_of(mut ended: watch::Receiver<Option<i32>>) -> Result<i32, Failure> {
    match ended.wait_for(Option::is_some).await {
        Ok(status) => status.ok_or_else(lost),
        Err(_) => Err(lost()),
    }
}

fn lost() -> Failure {
    Failure::NotFound { what: "exit status of a process that was removed".into() }
}
