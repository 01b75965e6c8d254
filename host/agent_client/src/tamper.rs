//! The hostile host: whatever it can do to requests, it does here.

/// One call as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// ttrpc service.
    pub service: String,
    /// ttrpc method.
    pub method: String,
    /// Encoded request message.
    pub payload: Vec<u8>,
}

/// Alters calls on their way out. The attack tests use it to play a hostile host; since nobody trusts the
/// host, it weakens nothing.
pub trait Tamper: Send + Sync {
    /// The calls to make in place of this one, in order: the first failure ends them, the last answer counts.
    /// None at all counts as an empty answer.
    fn alter(&self, call: RawCall) -> Vec<RawCall>;
}

impl<F: Fn(RawCall) -> Vec<RawCall> + Send + Sync> Tamper for F {
    fn alter(&self, call: RawCall) -> Vec<RawCall> {
        self(call)
    }
}
