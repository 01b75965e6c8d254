//! What a node counts: shims tell, the snapshotter shows it in Prometheus' text format.
//!
//! A pod's shim ends with its pod, so it keeps no counts: it sends each event as one datagram to a socket of the process that lives as long as
//! the node, and never waits for it. Events are lost while that process does not run. docs/node.md lists the metrics. Spans of calls go the same way,
//! to whoever hands them to a collector.
#![forbid(unsafe_code)]

mod address;
mod collect;
mod event;
mod http;
mod metrics;
mod span;

pub use address::{Address, AddressError};
pub use collect::collect;
pub use event::{EVENTS_SOCKET, Event, Sender};
pub use http::serve;
pub use metrics::Metrics;
pub use span::{Span, next_span};
