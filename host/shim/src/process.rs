//! One process of a container as containerd knows it: its state, moved forward, and its end.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Notify, watch};

use crate::ShimError;
use crate::convert;
use crate::stdio::Stdio;
use crate::wire::task::Status;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0 to 255, 128 and the signal's number when a signal ended it.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// Of a process that the VM took with it: SIGKILL.
pub(crate) const GONE: u32 = 137;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }

    pub(crate) fn status(self) -> Status {
        match self {
            Self::Created => Status::CREATED,
            Self::Running => Status::RUNNING,
            Self::Paused => Status::PAUSED,
            Self::Stopped(_) => Status::STOPPED,
        }
    }
}

/// A process.
pub(crate) struct Process {
    pub(crate) container_id: String,
    /// Empty for a container's first process.
    pub(crate) exec_id: String,
    pub(crate) stdio: Stdio,
    /// What an exec runs.
    pub(crate) spec: Option<convert::Process>,
    pub(crate) close_stdin: Arc<Notify>,
    state: watch::Sender<State>,
}

impl Process {
    pub(crate) fn new(
        container_id: &str,
        exec_id: &str,
        stdio: Stdio,
        spec: Option<convert::Process>,
    ) -> Self {
        Self {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            stdio,
            spec,
            close_stdin: Arc::new(Notify::new()),
            state: watch::Sender::new(State::Created),
        }
    }

    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// From one state to the next; of two that want the same step, one gets it.
    pub(crate) fn step(&self, from: State, to: State) -> Result<(), ShimError> {
        let mut found = from;
        self.state.send_if_modified(|state| {
            found = *state;
            let fits = *state == from;
            if fits {
                *state = to;
            }
            fits
        });
        match found == from {
            true => Ok(()),
            false => Err(self.wrong(found, from.name())),
        }
    }

    pub(crate) fn wrong(&self, found: State, expected: &'static str) -> ShimError {
        ShimError::State { what: self.what(), found: found.name(), expected }
    }

    pub(crate) fn what(&self) -> String {
        match self.exec_id.as_str() {
            "" => format!("container {}", self.container_id),
            exec => format!("process {exec} of container {}", self.container_id),
        }
    }

    /// The first end counts.
    pub(crate) fn end(&self, status: u32) -> Option<Exit> {
        let exit = Exit { status, at: SystemTime::now() };
        let first = self.state.send_if_modified(|state| {
            let first = !matches!(state, State::Stopped(_));
            if first {
                *state = State::Stopped(exit);
            }
            first
        });
        first.then_some(exit)
    }

    pub(crate) async fn wait(&self) -> Exit {
        let mut state = self.state.subscribe();
        loop {
            if let State::Stopped(exit) = *state.borrow_and_update() {
                return exit;
            }
            if state.changed().await.is_err() {
                return Exit { status: GONE, at: SystemTime::now() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_forward_once() {
        let process = Process::new("a", "", Stdio::default(), None);
        assert!(process.step(State::Running, State::Paused).is_err());
        process.step(State::Created, State::Running).unwrap();
        let error = process.step(State::Created, State::Running).unwrap_err();
        assert_eq!(error.to_string(), "container a: found running, expected created");
        assert_eq!(process.end(3).unwrap().status, 3);
        assert_eq!(process.end(4), None);
        assert!(matches!(process.state(), State::Stopped(Exit { status: 3, .. })));
    }
}
