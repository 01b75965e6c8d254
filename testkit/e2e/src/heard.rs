//! What was heard of a pod: every line, every stage, every decision of the key service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ah_keyservice::LogEntry;
use ah_sandbox::{Events, Stage, Stream};

/// Collects; clones hear the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    lines: Vec<(String, Stream, String)>,
    stages: Vec<Stage>,
    decisions: Vec<LogEntry>,
    out_of_memory: Vec<String>,
}

impl Heard {
    /// Lines of a container's standard output.
    pub fn stdout(&self, container: &str) -> Vec<String> {
        self.lines(container, Stream::Stdout)
    }

    /// Lines of a container's standard error.
    pub fn stderr(&self, container: &str) -> Vec<String> {
        self.lines(container, Stream::Stderr)
    }

    /// Everything that any container printed.
    pub fn everything(&self) -> String {
        let lines = &self.inner().lines;
        lines.iter().map(|(container, _, line)| format!("[{container}] {line}\n")).collect()
    }

    /// Stages in the order in which they were reached.
    pub fn stages(&self) -> Vec<Stage> {
        self.inner().stages.clone()
    }

    /// The key service's decisions.
    pub fn decisions(&self) -> Vec<LogEntry> {
        self.inner().decisions.clone()
    }

    /// Containers that ran out of memory, each as often as it was told.
    pub fn out_of_memory(&self) -> Vec<String> {
        self.inner().out_of_memory.clone()
    }

    /// For the key service.
    pub fn observer(&self) -> ah_keyservice::Observer {
        let heard = self.clone();
        Arc::new(move |entry: &LogEntry| heard.inner().decisions.push(entry.clone()))
    }

    fn lines(&self, container: &str, stream: Stream) -> Vec<String> {
        let inner = self.inner();
        let of = |(name, from, _): &&(String, Stream, String)| name == container && *from == stream;
        inner.lines.iter().filter(of).map(|(_, _, line)| line.clone()).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for Heard {
    fn output(&self, container: &str, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.inner().lines.push((container.into(), stream, line));
    }

    fn stage(&self, stage: &Stage) {
        self.inner().stages.push(stage.clone());
    }

    fn out_of_memory(&self, container: &str) {
        self.inner().out_of_memory.push(container.into());
    }
}
