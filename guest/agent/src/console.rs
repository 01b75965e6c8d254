//! Lines for the host's console. Nothing else of the agent's leaves the guest: what is logged is what is passed to this module.

use std::sync::atomic::{AtomicU8, Ordering};

use ah_agent_api::TraceParent;
use ah_guest_sys::kernel::console_line;

/// How much is told; fixed by the measured command line (`anchorhold.log=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Failures of the guest itself.
    Error = 0,
    /// One line for each request that was refused or failed.
    Info = 1,
    /// One line for each request.
    Debug = 2,
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            other => Err(format!("log level: found {other:?}, expected error, info or debug")),
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Error as u8);

/// Sets how much is told from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

tokio::task_local! {
    static TRACE: TraceParent;
}

/// Does `work`, whose lines say the trace that the host calls from. What it spawns is not part of it by itself: see [`in_this_trace`].
pub async fn in_trace<T>(trace: Option<TraceParent>, work: impl Future<Output = T>) -> T {
    match trace {
        Some(trace) => TRACE.scope(trace, work).await,
        None => work.await,
    }
}

/// The trace that the current work is in.
pub fn trace() -> Option<TraceParent> {
    TRACE.try_with(|trace| *trace).ok()
}

/// `work` for another task, in the trace of the current one.
pub(crate) fn in_this_trace<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    in_trace(trace(), work)
}

/// `work` for another thread, in the trace of the current task.
pub(crate) fn blocking_in_this_trace<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let trace = trace();
    move || match trace {
        Some(trace) => TRACE.sync_scope(trace, work),
        None => work(),
    }
}

/// Tells the host `text` when the level says so.
pub fn tell(level: Level, text: &str) {
    if level as u8 <= LEVEL.load(Ordering::Relaxed) {
        console_line(&line(text));
    }
}

fn line(text: &str) -> String {
    match trace() {
        Some(trace) => format!("anchorhold-agent: {text} trace={}", trace.trace_id()),
        None => format!("anchorhold-agent: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_say_the_trace_that_they_are_in() {
        let trace = TraceParent::new(0x4bf9, 1);
        let told = in_trace(trace, async { line("CreateContainer: no") }).await;
        assert_eq!(
            told,
            "anchorhold-agent: CreateContainer: no trace=00000000000000000000000000004bf9"
        );
        let told = in_trace(trace, async {
            let on_a_thread = blocking_in_this_trace(|| line("container c1: bad block"));
            tokio::task::spawn_blocking(on_a_thread).await.unwrap()
        });
        assert_eq!(
            told.await,
            "anchorhold-agent: container c1: bad block trace=00000000000000000000000000004bf9"
        );
        let told = in_trace(None, async { line("CreateContainer: no") }).await;
        assert_eq!(told, "anchorhold-agent: CreateContainer: no");
    }
}
