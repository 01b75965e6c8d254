//! The trace that a call to the agent belongs to.

use ah_agent_api::{TRACEPARENT, TraceParent};
use ttrpc::proto::KeyValue;

tokio::task_local! {
    static TRACE: TraceParent;
}

/// Does `work`, whose calls to the agent tell it where they belong. What `work` spawns is not part of it.
pub async fn in_trace<T>(parent: TraceParent, work: impl Future<Output = T>) -> T {
    TRACE.scope(parent, work).await
}

/// The trace that the current work is in.
pub fn trace() -> Option<TraceParent> {
    TRACE.try_with(|parent| *parent).ok()
}

/// What a call says of the trace that it is in.
pub(crate) fn metadata() -> Vec<KeyValue> {
    let parent = trace().map(|parent| KeyValue {
        key: TRACEPARENT.into(),
        value: parent.to_string(),
        ..Default::default()
    });
    parent.into_iter().collect()
}
